"""`python -m embedded.warm`: fetch the jars and let the JVM learn Kafka's classes once, so that later starts are quick.

Part of the installation; run again it finds everything done and ends at once.
"""

import os
import sys
import tempfile
from pathlib import Path

from embedded import jars
from embedded.errors import EmbeddedFault
from embedded.kafka import EmbeddedKafka, aot_cache
from embedded.ports import free_port

# Writing the cache starts a second JVM that compiles what the first one used: 5 s, or 30 on a busy machine.
WRITE_PATIENCE_SECONDS = 180.0


def warm() -> bool:
    """True when something had to be done."""
    jars.class_path()
    cache = aot_cache()
    if cache.exists():
        return False
    with tempfile.TemporaryDirectory(prefix="farebox-warm-", dir=cache.parent) as folder:
        learnt = Path(folder) / "learnt.aot"
        options = [f"-XX:AOTCacheOutput={learnt}"]
        kafka = EmbeddedKafka(Path(folder) / "kafka", port=free_port(), jvm_options=options)
        kafka.start()
        kafka.stop(WRITE_PATIENCE_SECONDS)
        if learnt.exists():
            os.replace(learnt, cache)
    return True


if __name__ == "__main__":
    try:
        done = warm()
    except EmbeddedFault as fault:
        sys.exit(f"farebox: {fault}")
    sys.stdout.write("Kafka is ready to start quickly\n" if done else "")
