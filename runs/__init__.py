"""What a run leaves behind: errors with exit codes, atomic files, snapshots, the run folder, metrics.

Plain NumPy: importing this package imports neither TensorFlow nor TensorBoard.
"""

from secateur.runs.errors import (
    EXIT_CODES,
    DataError,
    OutOfMemoryError,
    RunFolderError,
    SecateurError,
    SnapshotError,
    TrainingError,
    UsageError,
    WorkerError,
    cli,
    warn,
)
from secateur.runs.files import (
    append_jsonl,
    make_atomic,
    read_json,
    read_jsonl,
    sha256,
    to_json,
    write_atomic,
    write_json,
)
from secateur.runs.folder import RunFolder
from secateur.runs.metrics import MetricsLog
from secateur.runs.snapshot import Snapshot, load_snapshot, save_snapshot

__all__ = [
    "EXIT_CODES",
    "DataError",
    "MetricsLog",
    "OutOfMemoryError",
    "RunFolder",
    "RunFolderError",
    "SecateurError",
    "Snapshot",
    "SnapshotError",
    "TrainingError",
    "UsageError",
    "WorkerError",
    "append_jsonl",
    "cli",
    "load_snapshot",
    "make_atomic",
    "read_json",
    "read_jsonl",
    "save_snapshot",
    "sha256",
    "to_json",
    "warn",
    "write_atomic",
    "write_json",
]
