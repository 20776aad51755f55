//! No secret, token or access signature reaches anything that is kept, any other process, or a request that does not need it;
//! and what is kept is for the daemon's user alone, with a file mode mask of 0 and a working directory that all may write into.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use bacula_bench::{
    Bench, Cloud, Generation, JOB, JobDefinition, RESTORED, RestoreRequest, on_both_generations,
};
use mock_server::{Action, Disk, Fault, MIB, Scenario, SecretKind, Vm};
use nix::sys::stat::{Mode, umask};

on_both_generations!(
    secrets_go_where_they_must_and_nowhere_else,
    links_in_the_working_directory_are_refused
);

/// The job that copies to a storage account.
const BLOB: &str = "blob";

/// The job that does so by signature.
const SIGNED: &str = "signed";

/// The job beside another.
const OTHER: &str = "other";

/// What is searched: what it is called, and its bytes.
type Kept = Vec<(String, Vec<u8>)>;

fn secrets_go_where_they_must_and_nowhere_else(generation: Generation) -> Result<()> {
    umask(Mode::empty());
    let tools = tempfile::tempdir()?;
    let called = tools.path().join("called");
    write_tool(&tools.path().join("az"), &called, "{}")?;
    let (command, included) = (tools.path().join("include"), tools.path().join("included"));
    write_tool(&command, &included, "# nothing")?;
    let os = Disk::new("web-os", 24 * MIB).pattern(1, 0, 4 * MIB);
    let world = Scenario::new()
        .vm(Vm::new("rg", "web", os))
        .storage_account("stage");
    let cloud = Cloud::start(world)?;
    cloud.emulator().watch_secrets();
    let jobs = vec![
        JobDefinition::plugin(JOB, &cloud.plugin_command("vm=web debug=9")),
        // Onto a device of its own.
        JobDefinition::plugin(BLOB, &cloud.plugin_command("vm=web transfer=blob debug=9"))
            .with("Pool = copies"),
        JobDefinition::plugin(SIGNED, &signed_command(&cloud)?).with("Pool = copies"),
    ];
    let path = format!("{}:{}", tools.path().display(), std::env::var("PATH")?);
    let bench = Bench::start_jobs(generation, cloud, jobs, |config| {
        config.environment = vec![("PATH".into(), path)];
        config.file_daemon = format!("@|\"{}\"", command.display());
    })?;
    let at_start = fs::read(&included)?.len();
    let pid = bench.sandbox.file_daemon_pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    ensure!(status.contains("\nUmask:\t0000\n"), "{status}");

    let mut kept = say(&bench)?;
    for name in ["cmdline", "environ"] {
        let file = format!("/proc/{pid}/{name}");
        kept.push((file.clone(), fs::read(file)?));
    }
    if generation == Generation::V15_0 {
        kept.push((
            "what a tool saw".into(),
            fs::read(&called).context("no tool was called")?,
        ));
    }
    let seen = fs::read(&included)?;
    ensure!(
        seen.len() > at_start,
        "no job has run the command of the configuration"
    );
    kept.push(("what a command of the configuration saw".into(), seen));
    let private = bench.sandbox.file_daemon_directory().join("azure-vm");
    ensure_private(&private)?;
    let files = contents(bench.sandbox.root())?;
    for part in [
        "/azure-vm/azure-vm_",
        "/azure-vm/tracker.json",
        "/azure-vm/restore/",
        "/volumes/",
    ] {
        ensure!(
            files
                .iter()
                .any(|(name, bytes)| name.contains(part) && !bytes.is_empty()),
            "no {part}"
        );
    }
    kept.extend(files);
    let dump = bench.sandbox.catalog_dump()?;
    kept.push(("catalog".into(), dump.into_bytes()));

    let secrets = bench.cloud.emulator().secrets();
    let search = Search::new(&secrets);
    for (name, bytes) in &kept {
        let found = search.first(bytes);
        ensure!(found.is_none(), "{name} holds a secret: {found:?}");
    }
    // What was searched for would be found, from the first byte to the last.
    let config = fs::read(bench.cloud.config_file())?;
    ensure!(search.first(&config) == Some(SecretKind::ClientSecret));
    for (kind, text) in &secrets {
        ensure!(search.first(text.as_bytes()) == Some(*kind), "{kind:?}");
    }
    ensure_sent_where_needed(&bench)
}

/// The plugin command of a job that copies to the storage account, which a signature opens.
fn signed_command(cloud: &Cloud) -> Result<String> {
    let emulator = cloud.emulator();
    let key = emulator.signed_connection_string("stage", "2099-01-01T00:00:00Z");
    let key = key.replace(
        emulator.http_url(),
        &emulator.https_url().replace("localhost", "127.0.0.1"),
    );
    let config = cloud.write_config("signed.conf", &[("connection_key", Some(&key))])?;
    let config = config.display();
    Ok(format!(
        "azure-vm: config={config} vm=web transfer=blob debug=9"
    ))
}

/// Jobs of all kinds and endings, and questions; returns all that they said.
fn say(bench: &Bench) -> Result<Kept> {
    let (sandbox, emulator) = (&bench.sandbox, bench.cloud.emulator());
    let started = Instant::now();
    let blob = sandbox.start_backup(BLOB, "Full")?;
    let full = bench.full()?;
    let blob = sandbox.wait(blob, started)?.clean()?;
    let signed = sandbox.backup(SIGNED, "Full")?.clean()?;
    emulator.guest_pattern("web-os", 7, 5 * MIB, 4096)?;
    let changes = sandbox.backup(JOB, "Incremental")?.clean()?;
    let restore = sandbox.restore(&RestoreRequest {
        jobs: vec![full.id, changes.id],
        ..RestoreRequest::named(RESTORED)
    })?;
    let restore = restore.clean()?;

    // A gateway that quotes the request in full.
    let texts: BTreeMap<_, _> = emulator.secrets().into_iter().collect();
    let quote = format!(
        "Authorization: Bearer {}; client_secret={}; AccountKey={}; sv=1&sig={}; \
         https://stage.example/c/b?sv=1&sig={}; https://arm.example/operations/1?t=1&c=MII&s={}",
        texts[&SecretKind::Token],
        texts[&SecretKind::ClientSecret],
        texts[&SecretKind::AccountKey],
        texts[&SecretKind::Signature],
        texts[&SecretKind::AccountSignature],
        texts[&SecretKind::PollingSignature],
    );
    let body = format!(r#"{{"error": {{"code": "Quoted", "message": "{quote}"}}}}"#);
    emulator.fault(Fault::new(
        "VirtualMachines_ListAll",
        Action::Status {
            status: 400,
            code: None,
            body: Some(body),
            retry_after: None,
        },
    ));
    let failed = sandbox.backup(JOB, "Full")?;
    ensure!(
        failed.status != 'T' && failed.log.contains("Authorization: Bearer ***"),
        "{}",
        failed.log
    );
    emulator.clear_faults();
    let point = sandbox.file_daemon_directory().join("azure-vm/panic");
    fs::write(&point, format!("pluginIO {} 3", failed.id + 1))?;
    let panicked = sandbox.backup(JOB, "Full")?;
    ensure!(
        panicked.log.contains("internal error") && !point.exists(),
        "{}",
        panicked.log
    );

    let mut kept: Kept = [full, blob, signed, changes, restore, failed, panicked]
        .into_iter()
        .map(|report| (format!("log of job {}", report.id), report.log.into_bytes()))
        .collect();
    let plugin = bench.cloud.plugin_command("debug=9");
    for question in [
        format!(".ls client=bench-fd plugin=\"{plugin}\" path=/"),
        format!("estimate job={JOB} level=Full listing"),
        format!(".query plugin=\"{plugin}\" client=bench-fd parameter=CONNECTION"),
        format!(".query plugin=\"{plugin}\" client=bench-fd parameter=VERSION"),
    ] {
        let answer = sandbox.ask(&question)?;
        kept.push((question, answer.into_bytes()));
    }
    Ok(kept)
}

/// Each secret came to Azure, and in the one place of a request that is made for it.
fn ensure_sent_where_needed(bench: &Bench) -> Result<()> {
    let sightings = bench.cloud.emulator().sightings();
    let kinds: BTreeSet<_> = sightings.iter().map(|sighting| sighting.kind).collect();
    let sent = [
        SecretKind::ClientSecret,
        SecretKind::Token,
        SecretKind::Signature,
        SecretKind::AccountSignature,
        SecretKind::PollingSignature,
    ];
    ensure!(kinds == sent.into(), "{sightings:?}");
    for sighting in &sightings {
        let (operation, place) = (&*sighting.operation, &*sighting.place);
        let is_token = operation == "Token";
        let is_account =
            operation.starts_with("StorageBlob_") || operation.starts_with("Container_");
        let is_blob = operation.starts_with("Blob_");
        let is_poll = operation.contains("Operations_Get");
        let needed = match sighting.kind {
            SecretKind::ClientSecret => is_token && place == "body",
            SecretKind::Token => {
                !(is_token || is_blob || is_account) && place == "header authorization"
            }
            SecretKind::Signature => match place {
                "query sig" | "header x-ms-previous-snapshot-url" => is_blob,
                "header x-ms-copy-source" => is_account,
                _ => false,
            },
            SecretKind::AccountSignature => is_account && place == "query sig",
            SecretKind::PollingSignature => is_poll && place == "query s",
            // It signs, and stays here.
            SecretKind::AccountKey => false,
        };
        ensure!(needed, "{sighting:?}");
    }
    Ok(())
}

fn links_in_the_working_directory_are_refused(generation: Generation) -> Result<()> {
    let os = Disk::new("web-os", 24 * MIB).pattern(1, 0, MIB);
    let cloud = Cloud::start(Scenario::new().vm(Vm::new("rg", "web", os)))?;
    let command = cloud.plugin_command("vm=web debug=1");
    let jobs = vec![
        JobDefinition::plugin(JOB, &command),
        JobDefinition::plugin(OTHER, &command).with("Pool = copies"),
    ];
    let bench = Bench::start_jobs(generation, cloud, jobs, |_| {})?;
    let sandbox = &bench.sandbox;
    let full = bench.full()?;
    // As if restores had died there.
    let elsewhere = tempfile::tempdir()?;
    let at = |name: &str| elsewhere.path().join(name);
    for (names, mode) in [
        (&["7", "restore", "restore/7"][..], 0o700),
        (
            &[
                "7/in-use",
                "7/victim",
                "restore/7/in-use",
                "restore/7/victim",
            ],
            0o600,
        ),
    ] {
        for name in names {
            match mode {
                0o700 => fs::create_dir(at(name))?,
                _ => fs::write(at(name), "")?,
            }
            fs::set_permissions(at(name), fs::Permissions::from_mode(mode))?;
        }
    }
    let ours = sandbox.file_daemon_directory().join("azure-vm");
    let inner = ours.join("restore");
    fs::create_dir_all(&inner)?;
    // A backup has nothing to do with the folder of restores.
    for (link, fails_backup) in [(&inner, false), (&ours, true)] {
        let aside = ours.with_file_name("aside");
        fs::rename(link, &aside)?;
        symlink(elsewhere.path(), link)?;
        let started = Instant::now();
        let backup = sandbox.start_backup(OTHER, "Full")?;
        let restore = sandbox.restore(&RestoreRequest {
            jobs: vec![full.id],
            ..RestoreRequest::named(RESTORED)
        })?;
        let backup = sandbox.wait(backup, started)?;
        for (report, fails) in [(&restore, true), (&backup, fails_backup)] {
            let is_refused = report.log.contains("it is a symbolic link");
            ensure!(
                is_refused == fails && (report.status != 'T') == fails,
                "{}",
                report.log
            );
        }
        for (folder, entries) in [(".", 2), ("7", 2), ("restore", 1), ("restore/7", 2)] {
            let count = fs::read_dir(at(folder))?.count();
            ensure!(count == entries, "{count} entries in {folder}");
        }
        fs::remove_file(link)?;
        fs::rename(&aside, link)?;
    }
    Ok(())
}

/// A tool that leaves its arguments and its environment in `called`.
fn write_tool(path: &Path, called: &Path, answer: &str) -> Result<()> {
    let called = called.display();
    let script =
        format!("#!/bin/sh\necho \"$@\" >> {called}\n/usr/bin/env >> {called}\necho '{answer}'\n");
    fs::write(path, script)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Folders have mode 0700 and files 0600.
fn ensure_private(folder: &Path) -> Result<()> {
    let mode =
        |path: &Path| -> Result<u32> { Ok(path.symlink_metadata()?.permissions().mode() & 0o7777) };
    ensure!(
        mode(folder)? == 0o700,
        "{}: {:o}",
        folder.display(),
        mode(folder)?
    );
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            ensure_private(&path)?;
        } else {
            ensure!(
                mode(&path)? == 0o600,
                "{}: {:o}",
                path.display(),
                mode(&path)?
            );
        }
    }
    Ok(())
}

/// All forms of all secrets, by their first two bytes.
struct Search(HashMap<[u8; 2], Vec<(SecretKind, Vec<u8>)>>);

impl Search {
    fn new(secrets: &[(SecretKind, String)]) -> Self {
        let mut forms: HashMap<_, Vec<_>> = HashMap::new();
        for (kind, secret) in secrets {
            for form in forms_of(*kind, secret) {
                let form = form.into_bytes();
                forms
                    .entry([form[0], form[1]])
                    .or_default()
                    .push((*kind, form));
            }
        }
        Self(forms)
    }

    /// The kind of the first secret in these bytes.
    fn first(&self, bytes: &[u8]) -> Option<SecretKind> {
        let mut is_begin = vec![false; 1 << 16];
        for begin in self.0.keys() {
            is_begin[usize::from(u16::from_be_bytes(*begin))] = true;
        }
        (1..bytes.len()).find_map(|at| {
            let begin = [bytes[at - 1], bytes[at]];
            if !is_begin[usize::from(u16::from_be_bytes(begin))] {
                return None;
            }
            let rest = &bytes[at - 1..];
            let forms = self.0[&begin].iter();
            let mut found = forms.filter(|(_, form)| rest.starts_with(form));
            found.next().map(|(kind, _)| *kind)
        })
    }
}

/// A secret as it is and as it travels; of a token what nobody can guess.
fn forms_of(kind: SecretKind, secret: &str) -> Vec<String> {
    if kind == SecretKind::Token {
        return secret.split('.').skip(1).map(str::to_owned).collect();
    }
    let encoded = secret
        .replace('+', "%2B")
        .replace('/', "%2F")
        .replace('=', "%3D")
        .replace('&', "%26");
    let forms = [
        secret.to_owned(),
        encoded.replace('~', "%7E"),
        encoded
            .replace("%2B", "%2b")
            .replace("%2F", "%2f")
            .replace("%3D", "%3d"),
        encoded,
    ];
    let forms: BTreeSet<_> = forms.into();
    forms.into_iter().collect()
}

/// Names and contents of the files below a folder; disk images (larger than 64 MiB) are the guest's business.
fn contents(directory: &Path) -> Result<Kept> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            files.extend(contents(&entry.path())?);
        } else if metadata.is_file() && metadata.len() <= 64 * MIB {
            files.push((
                entry.path().to_string_lossy().into_owned(),
                fs::read(entry.path())?,
            ));
        }
    }
    Ok(files)
}
