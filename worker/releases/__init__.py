"""Releases: what a search worker serves. Light to import; the heavy parts are imported by what uses them.

release.py           a release, put together of an encoder and an index
encoder_folders.py   where encoders are: the store, and this machine
first.py             which release to serve, and the first one, made without any catalogue
build.py             a release made from the catalogue: runtime, embeddings, threshold, index
indexes.py           indexes of releases, on this machine
sample.py            photos and labels of the catalogue, to measure with
similar.py           the threshold of similar hits
"""

from shared.releases import Release, active_release
from worker.releases.encoder_folders import open_release
from worker.releases.first import serving_release

__all__ = ["Release", "active_release", "open_release", "serving_release"]
