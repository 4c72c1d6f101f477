"""`farebox payments`: what is known of them, where it comes from, and how it is put right."""

import typer

from cli.rebuild import rebuild_payments
from cli.reconcile import list_payouts, reconcile_payments
from cli.renewals import renewals

payments = typer.Typer(help="Payments and where they come from.", no_args_is_help=True)
payments.command("rebuild")(rebuild_payments)
payments.command("reconcile")(reconcile_payments)
payments.command("payouts")(list_payouts)
payments.add_typer(renewals, name="renewals")
