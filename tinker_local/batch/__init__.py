"""Files of requests: a JSON line in, a JSON line out, in order, going on where it was interrupted.

lines.py     bytes become lines
item.py      a line becomes what is asked, or what is wrong with it
task.py      what a line asks becomes a request, and its response a line: sampling, scoring
output.py    the file that is written, and how a run finds its place in it again
run.py       a window of requests in flight
progress.py  how far it is
"""

from tinker_local.batch.output import OutputFile, Stream
from tinker_local.batch.run import Batch, Summary
from tinker_local.batch.task import SampleTask, ScoreTask

__all__ = ["Batch", "OutputFile", "SampleTask", "ScoreTask", "Stream", "Summary"]
