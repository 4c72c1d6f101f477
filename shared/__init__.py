"""What every service needs and no service owns: facts, outbox, inbox, relay, consumer, money, errors, settings."""
