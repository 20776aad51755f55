//! Downloads and uploads of a page blob as a user of Azure's library would write them.
//!
//! `rust-sdk pull URL FILE PARALLEL` lists the page ranges and downloads them, in pieces of at most 4 MiB; `rust-sdk push
//! URL FILE PARALLEL` creates the blob and uploads the allocated parts of a raw image, in such pieces. So many requests are
//! under way at a time. `rust-sdk version` prints the library's.

use std::error::Error;
use std::fs::File;
use std::num::NonZero;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use azure_core::Bytes;
use azure_core::http::Url;
use azure_storage_blob::models::{BlobClientDownloadOptions, HttpRange};
use azure_storage_blob::{BlobClient, PageBlobClient};
use futures::{StreamExt, TryStreamExt, stream};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// What one request moves at most: all that Put Page takes, and what is read at a time for the others that are compared.
const PIECE: u64 = 4 << 20;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|command| command == "version") {
        println!("{}", version()?);
        return Ok(());
    }
    let [_, command, url, file, parallel] = &arguments[..] else {
        return Err("usage: rust-sdk pull|push URL FILE PARALLEL".into());
    };
    let (url, parallel) = (Url::parse(url)?, parallel.parse()?);
    match command.as_str() {
        "pull" => pull(url, file, parallel).await,
        "push" => push(url, file, parallel).await,
        _ => Err("pull or push?".into()),
    }
}

/// Of the library, as it was locked.
fn version() -> Result<&'static str> {
    let (_, package) = include_str!("../Cargo.lock")
        .split_once("name = \"azure_storage_blob\"\nversion = \"")
        .ok_or("the lock file does not know the library")?;
    Ok(package.split('"').next().unwrap_or_default())
}

/// Downloads without keeping any order, each piece written where it belongs as it comes: the fastest way.
async fn pull(url: Url, file: &str, parallel: usize) -> Result<()> {
    let file = Arc::new(File::create(file)?);
    let client = Arc::new(BlobClient::new(url, None, None)?);
    let ranges = list(&client.page_blob_client()).await?;
    stream::iter(ranges.into_iter().flat_map(pieces))
        .map(|piece| {
            let (client, file) = (Arc::clone(&client), Arc::clone(&file));
            tokio::spawn(async move {
                let options = BlobClientDownloadOptions {
                    range: Some((piece.start..piece.end).into()),
                    // One request per piece.
                    parallel: NonZero::new(1),
                    partition_size: NonZero::new(PIECE as usize),
                    ..BlobClientDownloadOptions::default()
                };
                let mut body = client.download(Some(options)).await?.body;
                let mut at = piece.start;
                while let Some(bytes) = body.try_next().await? {
                    file.write_all_at(&bytes, at)?;
                    at += bytes.len() as u64;
                }
                if at == piece.end {
                    Ok(())
                } else {
                    Err("a piece is short".into())
                }
            })
        })
        .buffer_unordered(parallel)
        .map(|joined| joined.unwrap_or_else(|error| Err(error.into())))
        .try_collect()
        .await
}

async fn list(client: &PageBlobClient) -> Result<Vec<Range<u64>>> {
    let mut ranges = Vec::new();
    let mut pages = client.list_page_ranges(None)?;
    while let Some(page) = pages.try_next().await? {
        for range in page.into_model()?.page_ranges {
            let (Some(start), Some(end)) = (range.start, range.end) else {
                return Err("a range has no bounds".into());
            };
            ranges.push(start.try_into()?..u64::try_from(end)? + 1);
        }
    }
    Ok(ranges)
}

async fn push(url: Url, file: &str, parallel: usize) -> Result<()> {
    let file = Arc::new(File::open(file)?);
    let client = Arc::new(PageBlobClient::new(url, None, None)?);
    client.create(file.metadata()?.size(), None).await?;
    stream::iter(extents(&file)?.into_iter().flat_map(pieces))
        .map(|piece| {
            let (client, file) = (Arc::clone(&client), Arc::clone(&file));
            tokio::spawn(async move {
                let len = piece.end - piece.start;
                let mut data = vec![0; usize::try_from(len)?];
                file.read_exact_at(&mut data, piece.start)?;
                let range = HttpRange::new(piece.start, len);
                client
                    .upload_pages(Bytes::from(data).into(), len, range, None)
                    .await?;
                Ok(())
            })
        })
        .buffer_unordered(parallel)
        .map(|joined| joined.unwrap_or_else(|error| Err(error.into())))
        .try_collect()
        .await
}

/// What of a sparse file is allocated.
fn extents(file: &File) -> Result<Vec<Range<u64>>> {
    let mut extents = Vec::new();
    let mut at = 0;
    loop {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            // There is nothing behind.
            Err(Errno::NXIO) => return Ok(extents),
            Err(error) => return Err(error.into()),
        };
        at = seek(file, SeekFrom::Hole(start))?;
        extents.push(start..at);
    }
}

fn pieces(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let starts = (range.start..range.end).step_by(PIECE as usize);
    starts.map(move |start| start..range.end.min(start + PIECE))
}
