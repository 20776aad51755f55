//! The Director's part: a catalog of runs, which run the next one builds on, and what a restore needs.
//!
//! Written from what the daemons do: runs that failed, were cancelled or stayed incomplete count for nothing; an
//! Incremental without a Full becomes one; an Incremental that `Max Diff Interval` turns into a Differential keeps the
//! name of the run before it.

use crate::jobs::Stored;

/// All runs of one Job resource, in the order of their starts.
pub(crate) struct Catalog {
    /// Name of the Job resource.
    job: String,
    pub(crate) runs: Vec<RunRow>,
}

/// A run in the catalog.
pub(crate) struct RunRow {
    pub(crate) name: String,
    pub(crate) level: char,
    /// `T` good, `f` failed, `A` cancelled, `I` incomplete.
    pub(crate) status: char,
    /// Unique name of the run that it was told to build on.
    pub(crate) previous: Option<String>,
    /// As they lie on the volume, in their order.
    pub(crate) files: Vec<Stored>,
}

/// What a run is started with.
#[derive(Clone, Debug)]
pub(crate) struct Started {
    pub(crate) name: String,
    pub(crate) level: char,
    pub(crate) previous: Option<String>,
}

impl Catalog {
    pub(crate) fn new(job: &str) -> Self {
        Self {
            job: job.to_owned(),
            runs: Vec::new(),
        }
    }

    pub(crate) fn job(&self) -> &str {
        &self.job
    }

    /// Starts a run: its level may be raised, and it gets its unique name. `past_max_diff_interval` raises an
    /// Incremental to a Differential.
    pub(crate) fn start(&self, job_id: i32, wanted: char, past_max_diff_interval: bool) -> Started {
        let mut good = self.good();
        let (level, previous) = match wanted {
            _ if self.full_before(self.runs.len()).is_none() => ('F', None),
            'F' => ('F', None),
            'D' => {
                let full = self.full_before(self.runs.len()).map(|at| &self.runs[at]);
                ('D', full.map(|run| run.name.clone()))
            }
            _ => {
                let last = good.next_back().map(|(_, run)| run.name.clone());
                (if past_max_diff_interval { 'D' } else { 'I' }, last)
            }
        };
        let (minute, second) = (job_id / 60 % 60, job_id % 60);
        Started {
            name: format!(
                "{}.2026-01-05_01.{minute:02}.{second:02}_{:02}",
                self.job,
                job_id % 100
            ),
            level,
            previous,
        }
    }

    /// Enters a run that has ended.
    pub(crate) fn enter(&mut self, started: Started, status: char, files: Vec<Stored>) {
        // A run under the name of an incomplete one takes its place.
        self.runs.retain(|run| run.name != started.name);
        self.runs.push(RunRow {
            name: started.name,
            level: started.level,
            status,
            previous: started.previous,
            files,
        });
    }

    /// The good runs with their places.
    pub(crate) fn good(&self) -> impl DoubleEndedIterator<Item = (usize, &RunRow)> {
        self.runs
            .iter()
            .enumerate()
            .filter(|(_, run)| run.status == 'T')
    }

    pub(crate) fn run(&self, name: &str) -> Option<&RunRow> {
        self.runs.iter().find(|run| run.name == name)
    }

    /// The last good Full before place `end`.
    fn full_before(&self, end: usize) -> Option<usize> {
        self.good()
            .filter(|(at, run)| *at < end && run.level == 'F')
            .map(|(at, _)| at)
            .next_back()
    }

    /// The runs that a restore of the time of `at` reads, oldest first: the last Full, the last Differential since, the
    /// Incrementals since.
    pub(crate) fn restore_set(&self, at: usize) -> Vec<&RunRow> {
        let full = self.full_before(at + 1).expect("a good Full comes first");
        let since = |start: usize, level: char| {
            self.good()
                .filter(move |(place, run)| (start + 1..=at).contains(place) && run.level == level)
        };
        let differential = since(full, 'D').next_back().map(|(place, _)| place);
        let newest = differential.unwrap_or(full);
        std::iter::once(full)
            .chain(differential)
            .chain(since(newest, 'I').map(|(place, _)| place))
            .map(|place| &self.runs[place])
            .collect()
    }
}

/// What the Director itself would do with a short history.
#[test]
fn the_director_builds_on_good_runs() {
    let mut catalog = Catalog::new("nightly");
    let mut id = 0;
    let mut run = |wanted: char, upgraded: bool, status: char| {
        id += 1;
        let started = catalog.start(id, wanted, upgraded);
        let (level, previous) = (started.level, started.previous.clone());
        catalog.enter(started, status, Vec::new());
        let place = previous.and_then(|name| catalog.runs.iter().position(|run| run.name == name));
        (level, place)
    };
    assert_eq!(run('I', false, 'f'), ('F', None), "no Full yet");
    assert_eq!(run('D', false, 'T'), ('F', None), "the first one failed");
    assert_eq!(run('I', false, 'T'), ('I', Some(1)));
    assert_eq!(run('I', false, 'A'), ('I', Some(2)));
    assert_eq!(run('I', true, 'T'), ('D', Some(2)), "not the Full");
    assert_eq!(run('D', false, 'T'), ('D', Some(1)));
    assert_eq!(run('I', false, 'T'), ('I', Some(5)));
    let set: Vec<_> = catalog
        .restore_set(6)
        .into_iter()
        .map(|run| run.name.clone())
        .collect();
    assert_eq!(set, [1, 5, 6].map(|at| catalog.runs[at].name.clone()));
    assert_eq!(catalog.restore_set(2).len(), 2);
}
