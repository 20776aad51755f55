"""Downloads and uploads of a page blob as a user of Azure's library for Python would write them.

python_sdk.py pull|changes|push URL FILE PARALLEL [URL OF THE EARLIER SNAPSHOT]
python_sdk.py version
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import azure.storage.blob
from azure.storage.blob import BlobClient, BlobType

# What one request moves at most, as for the others that are compared.
PIECE = 4 << 20


def client(url):
    return BlobClient.from_blob_url(url, connection_verify=os.environ["SSL_CERT_FILE"], max_single_get_size=PIECE,
                                    max_chunk_get_size=PIECE, max_page_size=PIECE)


def pull(blob, file, parallel):
    """The library's own way: it leaves out what is not allocated."""
    with open(file, "wb") as target:
        blob.download_blob(max_concurrency=parallel).readinto(target)


def changes(blob, file, parallel, earlier):
    """The library lists what differs; reading it is left to the caller."""
    written, _cleared = blob.get_page_range_diff_for_managed_disk(previous_snapshot_url=earlier)
    pieces = [(start, min(PIECE, piece["end"] + 1 - start))
              for piece in written for start in range(piece["start"], piece["end"] + 1, PIECE)]
    target = os.open(file, os.O_WRONLY | os.O_CREAT)

    def copy(piece):
        offset, length = piece
        os.pwrite(target, blob.download_blob(offset=offset, length=length).readall(), offset)

    with ThreadPoolExecutor(parallel) as pool:
        list(pool.map(copy, pieces))


def push(blob, file, parallel):
    """The library's own way: it leaves out pieces that hold nothing but zeros."""
    with open(file, "rb") as source:
        blob.upload_blob(source, blob_type=BlobType.PAGEBLOB, length=os.path.getsize(file), overwrite=True,
                         max_concurrency=parallel)


def main(command, url=None, file=None, parallel=None, *further):
    if command == "version":
        print(azure.storage.blob.__version__)
        return
    {"pull": pull, "changes": changes, "push": push}[command](client(url), file, int(parallel), *further)


if __name__ == "__main__":
    main(*sys.argv[1:])
