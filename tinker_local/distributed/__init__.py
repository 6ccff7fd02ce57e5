"""Many machines: files of requests on a Ray cluster, and OpenAI's endpoints as a Ray Serve deployment.

job.py            a file of requests on a cluster: Ray Data's pipeline, and its answers in order
input.py          JSON lines and Parquet, local or in a cloud, cut into windows that any node can read
answers.py        the callable classes for ``map_batches``: rows in, rows out; plain Python
answers_ahead.py  answers that came before their turn, on disk
parquet.py        the output as a Parquet file
model_files.py    a model on every node, found by hash or fetched once
cluster.py        Ray itself: connecting, what its nodes hold
deployment.py     Ray Serve: the endpoints as a deployment
replica.py        one of its replicas, and how it asks another

Needs the extra ``ray``, which only functions import. ``Answers`` works without it:

>>> answers = Answers(SampleTask(SamplingParams(max_tokens=16)), "SmolLM2-135M-Instruct")
>>> answers({"prompt": ["Once upon a time"], "seed": [1]})["sequences"]
"""

from tinker_local.distributed.answers import Answers
from tinker_local.distributed.job import ClusterJob, run_job

__all__ = ["Answers", "ClusterJob", "run_job"]
