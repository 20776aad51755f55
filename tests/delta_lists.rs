//! Ten thousand random differences, served page by page over HTTP, against a byte vector.
//!
//! Each case is an older image, writes and discards of single sectors, and one of the many lists by which a service may
//! describe them: interleaved, split where it need not be, in pages of any length, with empty pages in between. Parser,
//! planner and reader turn it into changes, which are applied as a restore does: clear, then write. The seed of a case
//! that fails is printed; `DELTA_SEED=n` runs that one alone. A few cases more have lists longer than a page of Azure's.
#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::collections::HashMap;
use std::env;
use std::fmt::Write;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use azure_vm_fd::azure::{PageBlob, SasUrl, Transport};
use azure_vm_fd::backup::{ExportedImage, MOST_CLEARED};
use azure_vm_fd::pipeline::{ImageReader, Limits, ReadQueue, ZeroBlocks};
use azure_vm_fd::vhd;
use fastrand::Rng;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

const CASES: u64 = 10_000;
/// Seeds behind those of [`CASES`].
const LONG_CASES: u64 = 6;
/// The most entries that Azure puts on a page.
const LONGEST_PAGE: usize = 10_000;
const WORKERS: u64 = 4;
const SECTOR: usize = 512;
/// The most sectors that change together: more than a short case has.
const SPAN: usize = 100;

/// One entry of a list: first byte, byte behind the last one, whether it was written.
type Listed = (usize, usize, bool);

#[derive(Debug)]
struct Case {
    /// With their VHD footers.
    base: Vec<u8>,
    target: Vec<u8>,
    pages: Vec<Vec<Listed>>,
    /// What the target has allocated behind the end of the base.
    grown: Vec<Vec<Listed>>,
    /// The most entries on a page.
    page: usize,
    /// Whether ranges are cut at the ends of the part that is asked for.
    cuts: bool,
    /// Bytes of the disk that are listed as written.
    written: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Change {
    None,
    Written,
    Cleared,
}

impl Case {
    /// A small disk, with a short list.
    fn short(random: &mut Rng) -> Self {
        let sectors = random.usize(1..=80);
        let page = match random.u8(..4) {
            0 => 1,
            1 => random.usize(2..10),
            2 => random.usize(10..60),
            _ => LONGEST_PAGE,
        };
        Self::new(sectors, page, random)
    }

    /// A list of two or three pages as long as they get: each sector of the disk is another change than the one before.
    fn long(random: &mut Rng) -> Self {
        let sectors = random.usize(2 * LONGEST_PAGE..3 * LONGEST_PAGE);
        Self::new(sectors, LONGEST_PAGE, random)
    }

    fn new(sectors: usize, page: usize, random: &mut Rng) -> Self {
        // Now and then the disk has grown since.
        let before = if sectors <= LONGEST_PAGE && random.u8(..) < 32 {
            random.usize(1..=sectors)
        } else {
            sectors
        };
        let mut base = vec![0; before * SECTOR];
        for sector in base.chunks_mut(SECTOR) {
            let fill = [0, random.u8(1..)][usize::from(random.u8(..) < 200)];
            sector.fill(fill);
        }
        let mut target = base.clone();
        target.resize(sectors * SECTOR, 0);

        let mut changes = vec![Change::None; sectors];
        let interleaved = random.u8(..) < 40;
        let whole = (sectors > LONGEST_PAGE).then_some((0..sectors, true));
        let spans: Vec<_> = (0..random.usize(0..12))
            .map(|_| {
                let start = random.usize(..sectors);
                let end = random.usize(start..sectors.min(start + SPAN)) + 1;
                (start..end, interleaved)
            })
            .collect();
        for (span, interleaved) in whole.into_iter().chain(spans) {
            let written = random.bool();
            for sector in span {
                let written = if interleaved {
                    sector % 2 == 0
                } else {
                    written
                };
                let bytes = &mut target[sector * SECTOR..][..SECTOR];
                match (written, random.u8(..8)) {
                    (false, _) => bytes.fill(0),
                    // Written with what was there, or with zeros, is a change as well.
                    (true, 0) => {}
                    (true, 1) => bytes.fill(0),
                    (true, _) => random.fill(bytes),
                }
                changes[sector] = [Change::Cleared, Change::Written][usize::from(written)];
            }
        }
        let mut case = Self {
            pages: Vec::new(),
            grown: Vec::new(),
            written: changes
                .iter()
                .filter(|&&change| change == Change::Written)
                .count() as u64
                * SECTOR as u64,
            base: with_footer(base),
            target: with_footer(target),
            page,
            cuts: random.bool(),
        };
        case.grown = pages(&grown(&changes, before, random), page, random);
        // A service may leave out of a difference what the base does not have at all.
        if random.bool() {
            changes[before..].fill(Change::None);
        }
        case.pages = pages(&list(&changes, random), page, random);
        case
    }

    /// `false` if the list did not get worse.
    fn spoil(&mut self, random: &mut Rng) -> bool {
        let mut all: Vec<Listed> = self.pages.concat();
        if all.is_empty() {
            return false;
        }
        let at = random.usize(..all.len());
        match random.u8(..6) {
            0 => all.insert(at, all[at]),
            // The same range as cleared and as written.
            1 => all.insert(at, (all[at].0, all[at].1, !all[at].2)),
            2 if at > 0 => all.swap(at - 1, at),
            3 => all.push((self.target.len(), self.target.len() + SECTOR, true)),
            4 => all[at].1 += 1,
            5 => all[at] = (all[at].1, all[at].0, all[at].2),
            _ => return false,
        }
        self.pages = pages(&all, self.page, random);
        true
    }

    /// The pages of what overlaps with a part of the disk, cut to it or not: what Azure does is not documented.
    fn part(&self, part: Range<usize>) -> Vec<Vec<Listed>> {
        let list = self.pages.iter().flatten();
        let within = list.filter(|(start, end, _)| *end > part.start && *start < part.end);
        let listed: Vec<Listed> = within
            .map(|&(start, end, written)| match self.cuts {
                true => (start.max(part.start), end.min(part.end), written),
                false => (start, end, written),
            })
            .collect();
        match listed.is_empty() {
            true => vec![listed],
            false => listed.chunks(self.page).map(<[_]>::to_vec).collect(),
        }
    }

    fn page(pages: &[Vec<Listed>], number: usize) -> String {
        let mut xml = String::from("\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><PageList>");
        for &(start, end, written) in &pages[number] {
            let name = if written { "PageRange" } else { "ClearRange" };
            let last = end as i64 - 1;
            write!(
                xml,
                "<{name}><Start>{start}</Start><End>{last}</End></{name}>"
            )
            .unwrap();
        }
        if number + 1 < pages.len() {
            write!(xml, "<NextMarker>p/{} &amp;+=</NextMarker>", number + 1).unwrap();
        }
        xml.push_str("</PageList>");
        xml
    }
}

fn with_footer(mut data: Vec<u8>) -> Vec<u8> {
    let id = uuid::Uuid::from_u128(1);
    let footer = vhd::fixed_footer(data.len() as u64, id, SystemTime::UNIX_EPOCH);
    data.extend(footer);
    data
}

/// The sectors as ranges, neighbours joined or not, the footer listed or not.
fn list(changes: &[Change], random: &mut Rng) -> Vec<Listed> {
    let mut list: Vec<Listed> = Vec::new();
    let splits = random.u8(..3) * 100;
    for (sector, &change) in changes.iter().enumerate() {
        let (start, end) = (sector * SECTOR, (sector + 1) * SECTOR);
        if change == Change::None {
            continue;
        }
        let written = change == Change::Written;
        match list.last_mut() {
            Some(last) if last.1 == start && last.2 == written && random.u8(..) >= splits => {
                last.1 = end;
            }
            _ => list.push((start, end, written)),
        }
    }
    let size = changes.len() * SECTOR;
    match (random.u8(..8), list.last_mut()) {
        (0, _) => list.push((size, size + SECTOR, true)),
        (1, Some(last)) if last.1 == size => last.1 += SECTOR,
        _ => {}
    }
    list
}

/// What is allocated from sector `before` on; what begins before it is cut there or not.
fn grown(changes: &[Change], before: usize, random: &mut Rng) -> Vec<Listed> {
    let mut grown = list(changes, random);
    let start = before * SECTOR;
    let size = changes.len() * SECTOR;
    grown.retain(|&(first, end, written)| written && end > start && first < size);
    if random.bool()
        && let Some(first) = grown.first_mut()
    {
        first.0 = first.0.max(start);
    }
    grown
}

fn pages(list: &[Listed], length: usize, random: &mut Rng) -> Vec<Vec<Listed>> {
    let mut pages: Vec<Vec<Listed>> = Vec::new();
    for page in list.chunks(length) {
        pages.extend((random.u8(..16) == 0).then(Vec::new));
        pages.push(page.to_vec());
    }
    // The last page may be empty, and so may be the only one.
    if pages.is_empty() || random.u8(..16) == 0 {
        pages.push(Vec::new());
    }
    pages
}

type Cases = Arc<Mutex<HashMap<u64, Arc<Case>>>>;

/// A server of page blobs, `/base/<seed>` and `/target/<seed>`, over bare HTTP/1.1.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    cases: Cases,
    /// Requests for a part of a difference.
    parts: Arc<AtomicU64>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Self {
            address,
            cases: Cases::default(),
            parts: Arc::default(),
        };
        let served = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, served.clone()));
            }
        });
        server
    }

    fn blob(&self, transport: &Transport, which: &str, seed: u64) -> PageBlob {
        let sas =
            SasUrl::parse(&format!("http://{}/{which}/{seed}?sig=a%2Bb", self.address)).unwrap();
        PageBlob::from_sas(transport, sas, CancellationToken::new())
    }
}

async fn serve(mut stream: TcpStream, server: Server) {
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read).lines();
    while let Ok(Some(request)) = lines.next_line().await {
        let mut headers = HashMap::new();
        while let Ok(Some(line)) = lines.next_line().await
            && let Some((name, value)) = line.split_once(": ")
        {
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let answer = answer(&request, &headers, &server);
        if write.write_all(&answer).await.is_err() {
            return;
        }
    }
}

fn answer(request: &str, headers: &HashMap<String, String>, server: &Server) -> Vec<u8> {
    let Server {
        address,
        cases,
        parts,
    } = server;
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let url = url::Url::parse(&format!("http://{address}{target}")).unwrap();
    let query: HashMap<_, _> = url.query_pairs().into_owned().collect();
    assert_eq!(query["sig"], "a+b");
    let (which, seed) = url.path()[1..].split_once('/').unwrap();
    let Some(case) = cases.lock().unwrap().get(&seed.parse().unwrap()).cloned() else {
        // What was under way beside a list that was refused.
        return b"HTTP/1.1 404 Gone\r\nContent-Length: 0\r\n\r\n".into();
    };
    let content = if which == "base" {
        &case.base
    } else {
        &case.target
    };
    let with_body = |status: &str, further: String, body: &[u8]| {
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{further}\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    };
    if method == "HEAD" {
        return format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            content.len()
        )
        .into();
    }
    if query.get("comp").is_some_and(|comp| comp == "pagelist") {
        assert_eq!(which, "target");
        let (part, probe);
        let asked = headers.get("x-ms-range").map(|text| span(text));
        let pages = if let Some(base) = headers.get("x-ms-previous-snapshot-url") {
            assert_eq!(*base, format!("http://{address}/base/{seed}?sig=a%2Bb"));
            match asked {
                None => &case.pages,
                Some(asked) => {
                    parts.fetch_add(1, Ordering::Relaxed);
                    part = case.part(asked);
                    &part
                }
            }
        } else if case.base.is_empty() {
            &case.pages
        } else {
            let grown = case.base.len() - SECTOR..case.target.len() - SECTOR;
            let asked = asked.unwrap();
            if asked == grown {
                &case.grown
            } else {
                // Where the changes leave something out: all of it is allocated.
                probe = vec![vec![(asked.start, asked.end, true)]];
                &probe
            }
        };
        let page = query.get("marker").map_or(0, |marker| {
            let number = marker.strip_prefix("p/").unwrap();
            number.strip_suffix(" &+=").unwrap().parse().unwrap()
        });
        let length = format!("x-ms-blob-content-length: {}\r\n", content.len());
        return with_body("200 OK", length, Case::page(pages, page).as_bytes());
    }
    let Range { start, end } = span(&headers["x-ms-range"]);
    if start >= content.len() {
        return with_body("416 Range", String::new(), b"");
    }
    let end = end.min(content.len());
    let (last, length) = (end - 1, content.len());
    let header = format!("Content-Range: bytes {start}-{last}/{length}\r\n");
    with_body("206 Partial Content", header, &content[start..end])
}

/// `bytes=0-511`.
fn span(header: &str) -> Range<usize> {
    let (first, last) = header["bytes=".len()..].split_once('-').unwrap();
    first.parse().unwrap()..last.parse::<usize>().unwrap() + 1
}

/// Lists, reads and applies the changes of a case; whether its list was accepted.
async fn replay(server: &Server, transport: &Transport, seed: u64) {
    let mut random = Rng::with_seed(seed);
    let mut case = if seed < CASES {
        Case::short(&mut random)
    } else {
        Case::long(&mut random)
    };
    // A long one is asked for in parts, in which what is spoilt between them does not come.
    let spoilt = seed < CASES && random.u8(..) < 8 && case.spoil(&mut random);
    let case = Arc::new(case);
    server.cases.lock().unwrap().insert(seed, Arc::clone(&case));

    let size = |image: &[u8]| (image.len() - SECTOR) as u64;
    let blob = |which: &str| server.blob(transport, which, seed);
    let most_cleared = [0, 1, 5, MOST_CLEARED][random.usize(..4)];
    // As a run does it, or as the command line does.
    let opened = if random.bool() {
        let known = random.bool().then(|| size(&case.target));
        let target = ExportedImage::open(blob("target"), "target".into(), known)
            .await
            .unwrap();
        let known = random.bool().then(|| size(&case.base));
        let base = ExportedImage::open(blob("base"), "base".into(), known)
            .await
            .unwrap();
        let changes = target.changes_since(&base, most_cleared).await;
        changes.map(|changes| (target, changes))
    } else {
        let named = |which: &str| (blob(which), which.to_owned());
        let opened = ExportedImage::open_changed(named("target"), named("base"), most_cleared);
        opened.await.map(|(target, base, changes)| {
            assert_eq!(base.size(), size(&case.base));
            (target, changes)
        })
    };
    let (target, changes) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            assert!(spoilt, "{error:?}");
            server.cases.lock().unwrap().remove(&seed);
            return;
        }
    };
    assert_eq!(target.size(), size(&case.target));
    assert!(!spoilt, "accepted {:?}", case.pages);
    assert!(changes.cleared.len() <= most_cleared);
    assert_eq!(changes.written_bytes, case.written);

    let limits = Limits {
        memory: 1 << 20,
        concurrency: random.usize(1..4),
        chunk: 512 * random.u64(1..100),
    };
    let cancel = CancellationToken::new();
    let queue = ReadQueue::new(limits, &cancel);
    let mut reader = ImageReader::new(queue.push(changes.plan), target.size(), ZeroBlocks::Keep);
    let mut image = case.base[..case.base.len() - SECTOR].to_vec();
    image.resize(case.target.len() - SECTOR, 0);
    let index = |at: u64| usize::try_from(at).unwrap();
    for range in &changes.cleared {
        image[index(range.start())..index(range.end())].fill(0);
    }
    let mut buffer = vec![0; random.usize(1..40_000)];
    while let Some(block) = reader.read_block(&mut buffer).await.unwrap() {
        image[index(block.offset)..][..block.len].copy_from_slice(&buffer[..block.len]);
    }
    assert!(image == case.target[..case.target.len() - SECTOR]);
    if most_cleared == MOST_CLEARED {
        // With a narrow gap here and there.
        let most = case.written + case.written / 50 + SECTOR as u64;
        assert!(reader.stats().delivered <= most);
    }
    server.cases.lock().unwrap().remove(&seed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_random_differences_are_replayed_exactly() {
    replay_all(0..CASES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_longer_than_a_page_are_replayed_exactly() {
    let seeds = CASES..CASES + LONG_CASES;
    for seed in seeds.clone() {
        let lengths: Vec<_> = {
            let pages = Case::long(&mut Rng::with_seed(seed)).pages;
            pages.iter().map(Vec::len).collect()
        };
        let full = lengths.iter().filter(|&&length| length == LONGEST_PAGE);
        assert!(full.count() > 0 && lengths.len() > 1, "{lengths:?}");
    }
    let parts = replay_all(seeds).await;
    let is_whole = env::var_os("DELTA_SEED").is_none();
    assert!(parts > 0 || !is_whole, "no list was asked for in slices");
}

/// How many times a part of a difference was asked for.
async fn replay_all(seeds: Range<u64>) -> u64 {
    let server = Arc::new(Server::start().await);
    let only: Option<u64> = env::var("DELTA_SEED")
        .ok()
        .map(|seed| seed.parse().unwrap());
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let server = Arc::clone(&server);
            let seeds = seeds.clone();
            tokio::spawn(async move {
                let transport = Transport::new(None, true, 4).unwrap();
                let seeds = seeds.filter(|seed| seed % WORKERS == worker);
                for seed in seeds.filter(|&seed| only.is_none_or(|only| only == seed)) {
                    let replayed = tokio::spawn({
                        let (server, transport) = (Arc::clone(&server), transport.clone());
                        async move { replay(&server, &transport, seed).await }
                    });
                    assert!(replayed.await.is_ok(), "DELTA_SEED={seed}");
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    server.parts.load(Ordering::Relaxed)
}

#[tokio::test]
async fn an_image_that_is_no_fixed_vhd_is_refused() {
    let server = Server::start().await;
    let transport = Transport::new(None, true, 1).unwrap();
    let good = Case::short(&mut Rng::with_seed(1)).target;
    let mut vhdx = good.clone();
    vhdx[..8].copy_from_slice(vhd::VHDX_SIGNATURE);
    // A guest may well have such a file at the beginning of its disk: the footer decides.
    let nested = vhdx.clone();
    let footer = vhdx.len() - SECTOR;
    vhdx[footer..].fill(0);
    let mut damaged = good.clone();
    damaged[footer + 100] ^= 1;
    let larger = [vec![0; SECTOR], good.clone()].concat();
    let disk = Some(footer as u64);
    for (seed, (image, size, reason)) in [
        (good, disk, ""),
        (nested, disk, ""),
        (vhdx[..SECTOR].to_vec(), disk, "VHDX"),
        (vhdx[..footer - SECTOR].to_vec(), None, "VHDX"),
        ([vhdx.clone(), vec![0; SECTOR]].concat(), disk, "VHDX"),
        (vhdx, disk, "VHDX"),
        (damaged, disk, "checksum"),
        (larger.clone(), disk, "instead of"),
        (larger, None, "says that it holds"),
        (vec![0; SECTOR], None, "512 bytes only"),
    ]
    .into_iter()
    .enumerate()
    {
        let case = Case {
            base: Vec::new(),
            target: image,
            // Its list is good in any case.
            pages: vec![vec![(0, SECTOR, true)]],
            grown: Vec::new(),
            page: 1,
            cuts: true,
            written: 0,
        };
        server
            .cases
            .lock()
            .unwrap()
            .insert(seed as u64, Arc::new(case));
        let blob = || server.blob(&transport, "target", seed as u64);
        let opened = ExportedImage::open(blob(), "it".into(), size).await;
        let listed = ExportedImage::open_full(blob(), "it".into(), size).await;
        for opened in [opened, listed.map(|(image, _)| image)] {
            match opened {
                Ok(_) => assert_eq!(reason, ""),
                Err(error) => {
                    let text = error.to_string();
                    assert!(
                        !reason.is_empty() && text.contains(reason),
                        "{reason}: {text}"
                    );
                }
            }
        }
    }
}
