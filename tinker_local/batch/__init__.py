"""Files of requests: one JSON line in, one JSON line out, in order; an interrupted run can be continued.

A line of the input passes through these files from top to bottom:

lines.py     bytes become lines
item.py      a line becomes an ``Item``: its keys and values, or what is wrong with them
task.py      an item becomes a request, and the response a line of the output: sampling or scoring
run.py       ``BatchRun`` keeps a window of requests in flight and writes their answers in order
output.py    the output file, and how a later run finds where to continue
settings.py  how an output was made, noted beside it
fingerprint.py  which model made it
progress.py  the progress bar

Several runs can share an input:

shard.py     the lines that one of them answers
merge.py     their outputs become one
"""

from tinker_local.batch.merge import Merged, merge
from tinker_local.batch.output import OutputFile, OutputStream
from tinker_local.batch.run import BatchRun, Summary
from tinker_local.batch.shard import Shard
from tinker_local.batch.task import SampleTask, ScoreTask

__all__ = [
    "BatchRun",
    "Merged",
    "OutputFile",
    "OutputStream",
    "SampleTask",
    "ScoreTask",
    "Shard",
    "Summary",
    "merge",
]
