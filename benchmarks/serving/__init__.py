"""The serving benchmark: what a search costs, where that goes, and what the same work costs elsewhere.

__main__.py        the command line; run.py runs the parts one after the other, as long as scale.py says
photos.py          the photos and the catalogue, read or drawn
weights.py         resnet50's weights: torchvision's, or stand-ins
load.py            the load generator, one asyncio process; http.py is its client
processes.py       CPU time and memory of process groups; starting one server alone
statistics.py      medians of repetitions
bundle.py          encoder, embeddings and items as plain files, for all systems but (b)
raw_engine.py      (a) decode, forward pass and search in a plain loop
torch_eager.py     the runtime that others are compared with
lookalike.py       (b) all processes of the Procfile; lookalike_parts.py measures bulk, caches and starts
litserve_app.py    (c) LitServe, same runtime files, its own batching
flask_app.py       (d) Flask and synchronous gunicorn workers, torch per request
celery_app.py      (e) Flask in front of a prefork Celery worker, torch per task
rivals.py          starts (c), (d), (e), tries their settings and measures the best
profile.py         py-spy samples as a table of categories
figures.py         the named figures and the goals
page.py, page_losses.py, plot.py   docs/results/serving.md and docs/images/serving.png
"""
