"""docs/migrations.md against the job: every exit code has its row, and the manifest retries what may be retried."""

import re
from pathlib import Path

import yaml

from migrations.guard.exits import ExitCode

PAGE = (Path(__file__).resolve().parent.parent.parent / "docs" / "migrations.md").read_text()
# What follows the migration failed; no stage of the job leaves with it.
FAILED_AFTER = 1
# What a second attempt may mend.
RETRIED = {
    FAILED_AFTER,
    ExitCode.UNREACHABLE,
    ExitCode.LOCK_BUSY,
    ExitCode.FAILED_RESUMABLE,
    ExitCode.INTERRUPTED,
}
FINE = {ExitCode.DONE, ExitCode.NOTHING_TO_DO}


def manifest() -> dict[str, dict[str, object]]:
    found = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return {each["kind"]: each for each in yaml.safe_load_all(found[1])}


def test_every_exit_code_says_what_to_do() -> None:
    section = PAGE.partition("## Exit codes")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| (.+) \| (.+) \|$", section, re.MULTILINE)
    assert [int(code) for code, _, _ in rows] == sorted({FAILED_AFTER, *map(int, ExitCode)})


def test_the_manifest_gives_up_exactly_where_a_person_must_decide() -> None:
    job = manifest()["Job"]
    assert isinstance(job["spec"], dict)
    stops = job["spec"]["podFailurePolicy"]["rules"][0]
    assert stops["action"] == "FailJob"
    assert set(stops["onExitCodes"]["values"]) == set(ExitCode) - RETRIED - FINE


def test_the_manifests_parts_name_each_other() -> None:
    parts = manifest()
    job = parts["Job"]
    assert isinstance(job["spec"], dict)
    pod = job["spec"]["template"]["spec"]
    container = pod["containers"][0]
    names = {kind: part["metadata"]["name"] for kind, part in parts.items()}  # type: ignore[index]
    assert container["envFrom"][0]["secretRef"]["name"] == names["Secret"]
    claims = [each["persistentVolumeClaim"] for each in pod["volumes"] if "emptyDir" not in each]
    assert claims == [{"claimName": names["PersistentVolumeClaim"]}]
    mounted = {each["mountPath"] for each in container["volumeMounts"]}
    folders = [each["value"] for each in container["env"] if each["name"].endswith("_DIR")]
    assert folders
    assert all(any(folder.startswith(f"{place}/") for place in mounted) for folder in folders)
