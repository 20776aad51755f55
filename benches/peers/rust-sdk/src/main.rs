//! Downloads and uploads of a page blob as a user of Azure's library would write them.
//!
//! `rust-sdk pull URL FILE PARALLEL` lists the page ranges and downloads them, in pieces of at most 4 MiB; `rust-sdk push
//! URL FILE PARALLEL` uploads the pages of a raw image that are not all zeros. So many requests are under way at a time. `rust-sdk version` prints the library's.

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

/// What one request moves at most: all that Put Page takes, and what is read at a time for the others that are compared.
const PIECE: u64 = 4 << 20;
/// What is left out of an upload if it holds nothing but zeros.
const GRAIN: usize = 64 << 10;

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
    stream::iter(pieces(0..file.metadata()?.size()))
        .map(|piece| {
            let (client, file) = (Arc::clone(&client), Arc::clone(&file));
            tokio::spawn(async move {
                let mut data = vec![0; usize::try_from(piece.end - piece.start)?];
                file.read_exact_at(&mut data, piece.start)?;
                let data = Bytes::from(data);
                for part in written(&data) {
                    let pages = data.slice(part.clone());
                    let len = pages.len() as u64;
                    let range = HttpRange::new(piece.start + part.start as u64, len);
                    let body = pages.into();
                    client.upload_pages(body, len, range, None).await?;
                }
                Ok(())
            })
        })
        .buffer_unordered(parallel)
        .map(|joined| joined.unwrap_or_else(|error| Err(error.into())))
        .try_collect()
        .await
}

/// The parts of a piece that hold something.
fn written(data: &[u8]) -> Vec<Range<usize>> {
    let mut parts: Vec<Range<usize>> = Vec::new();
    for (number, grain) in data.chunks(GRAIN).enumerate() {
        // The comparison with itself, shifted by one, is as fast as memory is.
        if grain[0] == 0 && grain[..grain.len() - 1] == grain[1..] {
            continue;
        }
        let start = number * GRAIN;
        let end = start + grain.len();
        match parts.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => parts.push(start..end),
        }
    }
    parts
}

fn pieces(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let starts = (range.start..range.end).step_by(PIECE as usize);
    starts.map(move |start| start..range.end.min(start + PIECE))
}
