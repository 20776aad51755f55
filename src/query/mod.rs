//! Questions about the surroundings of a backup, with answers for people and programs: what `.query` in bconsole and
//! `azure-vm query` say. Reads only.
//!
//! An answer is a list of `key=value` lines, of which the first is always `info=Query`. Every failure is part of the answer.

mod tools;

use std::env;
use std::fmt;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::azure::{self, Azure, ErrorKind};
use crate::backup::known_snapshots;
use crate::config::Settings;
use crate::document::Slot;
use crate::inventory::ManagedDisks;
use crate::json;
use crate::notice::with_causes;
use crate::private_folder::PrivateFolder;

/// A person waits; a login that takes longer is of no use to a job either.
const LOGIN_LIMIT: Duration = Duration::from_secs(60);

/// Long lists of throttled subscriptions take their time, but nobody waits for ever at a console.
const LIST_LIMIT: Duration = Duration::from_secs(300);

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Is the login to Azure possible?
    Connection,
    /// The VMs that Azure lists.
    Vm,
    /// The groups of the configuration file.
    Group,
    /// Versions of Azure's own tools, which are not needed here, and of this program.
    Version,
    /// The snapshots that the tracker knows.
    Snapshot,
    /// The disks of the VMs.
    Disk,
}

/// What answers are taken from; what is wrong with a source shows only in the answers that need it.
#[derive(Debug)]
pub struct Sources {
    /// How to reach Azure; or what is wrong with the settings.
    pub settings: Result<Settings, String>,
    /// The groups of the configuration file, in file order; or why it cannot be read.
    pub groups: Result<Vec<String>, String>,
    /// The folder of the tracker, if there is one; or why it cannot be used.
    pub state: Result<Option<PrivateFolder>, String>,
    /// Ends every wait.
    pub cancel: CancellationToken,
}

/// An answer. Display writes it as it goes to a console, each line with its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    lines: Vec<String>,
    /// Whether the question was understood and could be answered; `CONNECTION=NOK` counts as could not.
    pub is_good: bool,
    /// How Azure, or the way to it, failed, if that is why it could not.
    pub azure: Option<ErrorKind>,
}

/// Why a question cannot be answered.
#[derive(Debug)]
struct Reason {
    text: String,
    azure: Option<ErrorKind>,
}

impl From<String> for Reason {
    fn from(text: String) -> Self {
        Self { text, azure: None }
    }
}

impl From<azure::Error> for Reason {
    fn from(error: azure::Error) -> Self {
        Self {
            text: with_causes(&error),
            azure: Some(error.kind()),
        }
    }
}

impl Question {
    /// The question of this name, in whatever case.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        match name.to_ascii_uppercase().as_str() {
            "CONNECTION" => Some(Self::Connection),
            "VM" => Some(Self::Vm),
            "GROUP" => Some(Self::Group),
            "VERSION" => Some(Self::Version),
            "SNAPSHOT" => Some(Self::Snapshot),
            "DISK" => Some(Self::Disk),
            _ => None,
        }
    }
}

/// Answers the question of this name.
pub async fn answer(name: &str, sources: &Sources) -> Answer {
    let mut answer = Answer::default();
    let Some(question) = Question::of_name(name) else {
        // Word by word what administrators and programs know.
        answer.line("Query not recognized, possible value", "{CONNECTION, VM}");
        answer.line("info", "GROUP, VERSION, SNAPSHOT and DISK are known, too");
        answer.is_good = false;
        return answer;
    };
    let result = match question {
        Question::Connection => connection(sources, &mut answer).await,
        Question::Vm => virtual_machines(sources, &mut answer).await,
        Question::Group => groups(sources, &mut answer),
        Question::Version => versions(sources, &mut answer).await,
        Question::Snapshot => snapshots(sources, &mut answer),
        Question::Disk => disks(sources, &mut answer).await,
    };
    if let Err(reason) = result {
        answer.fail(question, reason);
    }
    answer
}

/// The answer of somebody who cannot even ask.
#[must_use]
pub fn failure(name: &str, reason: &str) -> Answer {
    let mut answer = Answer::default();
    let question = Question::of_name(name).unwrap_or(Question::Vm);
    answer.fail(question, reason.to_owned().into());
    answer
}

impl Default for Answer {
    fn default() -> Self {
        Self {
            lines: vec!["info=Query".to_owned()],
            is_good: true,
            azure: None,
        }
    }
}

impl Answer {
    /// The lines, the first included, without their ends.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    fn fail(&mut self, question: Question, reason: Reason) {
        tracing::warn!("answer a query: {}", reason.text);
        match question {
            // The reason has no place in this answer; the debug file has it, and `azure-vm check`.
            Question::Connection => self.line("CONNECTION", "NOK"),
            Question::Vm
            | Question::Group
            | Question::Version
            | Question::Snapshot
            | Question::Disk => self.line("error", &reason.text),
        }
        self.is_good = false;
        self.azure = reason.azure;
    }

    fn line(&mut self, key: &str, value: &str) {
        // A line end inside would look like another line.
        let value = value.replace(char::is_control, " ");
        self.lines.push(format!("{key}={value}"));
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

async fn connection(sources: &Sources, answer: &mut Answer) -> Result<(), Reason> {
    let azure = connect(sources)?;
    within(LOGIN_LIMIT, azure.login()).await?;
    answer.line("CONNECTION", "OK");
    Ok(())
}

/// All VMs that Azure lists, whatever the settings select, by name.
async fn virtual_machines(sources: &Sources, answer: &mut Answer) -> Result<(), Reason> {
    let azure = connect(sources)?;
    let listed = within(LIST_LIMIT, azure.virtual_machines()).await?;
    let mut names: Vec<_> = listed
        .iter()
        .filter_map(|vm| json::text(vm, "/name"))
        .collect();
    names.sort_unstable();
    for name in names {
        answer.line("VM", name);
    }
    Ok(())
}

fn groups(sources: &Sources, answer: &mut Answer) -> Result<(), Reason> {
    for group in sources.groups.as_ref().map_err(Clone::clone)? {
        answer.line("GROUP", group);
    }
    Ok(())
}

async fn versions(sources: &Sources, answer: &mut Answer) -> Result<(), Reason> {
    let path = env::var_os("PATH").unwrap_or_default();
    let versions = sources
        .cancel
        .run_until_cancelled(tools::versions(&path))
        .await
        .ok_or_else(|| "cancelled".to_owned())?;
    for (key, version) in versions {
        answer.line(key, &version);
    }
    answer.line("azure-vm-fd", env!("CARGO_PKG_VERSION"));
    Ok(())
}

/// What the tracker knows; asks nobody.
fn snapshots(sources: &Sources, answer: &mut Answer) -> Result<(), Reason> {
    let Some(state) = sources.state.as_ref().map_err(Clone::clone)? else {
        return Ok(());
    };
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |age| age.as_secs());
    for snapshot in known_snapshots(state).map_err(|error| with_causes(&error))? {
        // The job comes last: its name may contain blanks.
        answer.line(
            "SNAPSHOT",
            &format!(
                "{} vm={} disk={} slot={} level={} age={} size={} job={}",
                snapshot.id.name(),
                snapshot.vm_name,
                snapshot.disk_name,
                slot(snapshot.slot),
                snapshot.level,
                now.saturating_sub(snapshot.created),
                snapshot.size,
                snapshot.job,
            ),
        );
    }
    Ok(())
}

/// The disks of all VMs, by the names of these and then by slot.
async fn disks(sources: &Sources, answer: &mut Answer) -> Result<(), Reason> {
    let azure = connect(sources)?;
    let lists = async { tokio::try_join!(azure.virtual_machines(), azure.disks()) };
    let (mut vms, disks) = within(LIST_LIMIT, lists).await?;
    let disks = ManagedDisks::new(disks);
    let name = |vm: &Value| json::text(vm, "/name").unwrap_or_default().to_owned();
    vms.sort_by_cached_key(|vm| name(vm));
    for vm in &vms {
        for disk in disks.of_vm(vm) {
            let size = disk.size_bytes.map(|bytes| bytes.to_string());
            answer.line(
                "DISK",
                &format!(
                    "{} vm={} slot={} size={} sku={}",
                    disk.name,
                    name(vm),
                    slot(disk.slot),
                    size.as_deref().unwrap_or("unknown"),
                    disk.sku.as_deref().unwrap_or("unknown"),
                ),
            );
        }
    }
    Ok(())
}

/// In one word.
fn slot(slot: Slot) -> String {
    match slot {
        Slot::Os => "os".to_owned(),
        Slot::Data(lun) => lun.to_string(),
    }
}

fn connect(sources: &Sources) -> Result<Azure, Reason> {
    let settings = sources.settings.as_ref().map_err(Clone::clone)?;
    Ok(Azure::new(settings.azure.clone(), sources.cancel.clone())?)
}

/// Waits for Azure, but not for ever.
fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, azure::Error>>,
) -> impl Future<Output = Result<T, Reason>> {
    // Out of the way: these are large.
    let work = Box::pin(work);
    async move {
        match timeout(limit, work).await {
            Ok(result) => result.map_err(Reason::from),
            Err(_elapsed) => Err(format!("no answer from Azure in {} s", limit.as_secs()).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::net::TcpListener;

    use super::*;

    fn sources(command: &str) -> Sources {
        let file = Path::new("/nonexistent/azure-vm.conf");
        Sources {
            settings: Settings::from_command(command, file).map_err(|error| with_causes(&error)),
            groups: Ok(vec!["zeta".to_owned(), "alpha".to_owned()]),
            state: Err("no folder".to_owned()),
            cancel: CancellationToken::new(),
        }
    }

    async fn text(name: &str, sources: &Sources) -> String {
        answer(name, sources).await.to_string()
    }

    #[tokio::test]
    async fn what_cannot_be_asked_is_told_in_the_answer() {
        let sources = sources("azure-vm: tenant_id=t application_secret=hunter2");
        let nok = "info=Query\nCONNECTION=NOK\n";
        assert_eq!(text("CONNECTION", &sources).await, nok);
        for name in ["VM", "DISK"] {
            let answer = text(name, &sources).await;
            assert!(
                answer.starts_with("info=Query\nerror=missing subscription_id, application_id:"),
                "{answer}"
            );
            assert!(!answer.contains("hunter2"), "{answer}");
        }
        let answer = text("SNAPSHOT", &sources).await;
        assert_eq!(answer, "info=Query\nerror=no folder\n");
        // Asks nobody.
        let answer = text("Group", &sources).await;
        assert_eq!(answer, "info=Query\nGROUP=zeta\nGROUP=alpha\n");
    }

    #[tokio::test]
    async fn the_sentence_for_unknown_names_is_fixed() {
        for name in ["COLOUR", "", "V M"] {
            let answer = answer(name, &sources("azure-vm:")).await;
            assert!(!answer.is_good);
            assert_eq!(
                answer.lines()[..2],
                [
                    "info=Query",
                    "Query not recognized, possible value={CONNECTION, VM}"
                ]
            );
            assert!(answer.lines()[2].starts_with("info="), "{answer}");
        }
    }

    /// The clock is paused: it goes on as soon as everything waits.
    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        // Connections are taken, and never answered.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let sources = sources(&format!(
            "azure-vm: tenant_id=t subscription_id=s application_id=a application_secret=x \
             arm_endpoint={url} authority={url} allow_http=yes"
        ));
        let begun = tokio::time::Instant::now();
        let nok = "info=Query\nCONNECTION=NOK\n";
        assert_eq!(text("CONNECTION", &sources).await, nok);
        assert!(begun.elapsed() <= LOGIN_LIMIT);
        let answer = text("VM", &sources).await;
        assert!(answer.starts_with("info=Query\nerror="), "{answer}");
        assert!(begun.elapsed() <= LOGIN_LIMIT + LIST_LIMIT);

        sources.cancel.cancel();
        assert_eq!(text("CONNECTION", &sources).await, nok);
        let answer = text("VERSION", &sources).await;
        assert_eq!(answer, "info=Query\nerror=cancelled\n");
    }

    #[test]
    fn a_value_stays_on_its_line() {
        let mut answer = Answer::default();
        answer.line("error", "a\nVM=b");
        assert_eq!(answer.to_string(), "info=Query\nerror=a VM=b\n");
    }
}
