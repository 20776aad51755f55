//! The configuration file: groups, what beats what, what is refused, and secrets in files of their own.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use bacula_bench::{
    Bench, Cloud, Generation, JobDefinition, Trial, can_mount, on_both_generations, try_all,
    workspace,
};
use mock_server::{
    DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, DEFAULT_STORAGE_KEY, DEFAULT_SUBSCRIPTION,
    DEFAULT_TENANT, Disk, GIB, Principal, Scenario, Subscription, Tenant, Vm,
};

on_both_generations!(
    groups_are_complete_sets_and_the_plugin_line_beats_them,
    the_file_is_read_as_documented,
    a_file_that_cannot_be_used_is_refused_before_anything_is_asked,
    secrets_may_stand_in_files_of_their_own,
    the_file_at_the_usual_place_is_read,
);

const LABORATORY: &str = "(lab)~subscription";

/// A secret that only a file can hold: with blanks, quotes, and what begins comments elsewhere.
const AWKWARD: &str = r#""a secret"; with #blanks = 'and' \quotes\"#;

/// One VM in each of two subscriptions, which is how a trial shows the group that was taken.
fn cloud() -> Result<Cloud> {
    let mut world = Scenario::new();
    for (id, vm) in [(DEFAULT_SUBSCRIPTION, "prod01"), (LABORATORY, "lab01")] {
        world.subscriptions.push(Subscription {
            id: id.to_owned(),
            display_name: String::new(),
            tenant_id: None,
        });
        let mut vm = Vm::new(&format!("rg-{vm}"), vm, Disk::new(&format!("{vm}-os"), GIB));
        vm.subscription = Some(id.to_owned());
        world = world.vm(vm);
    }
    world.tenants = vec![Tenant {
        id: DEFAULT_TENANT.to_owned(),
        principals: [
            (DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET),
            ("awkward", AWKWARD),
        ]
        .map(|(client_id, client_secret)| Principal {
            client_id: client_id.to_owned(),
            client_secret: client_secret.to_owned(),
            subscriptions: None,
            denied_actions: Vec::new(),
        })
        .into(),
    }];
    Cloud::start(world)
}

/// The lines of a group that is complete but for the subscription.
fn access(cloud: &Cloud) -> Result<String> {
    let config = fs::read_to_string(cloud.config_file())?;
    let (_, lines) = config.split_once("[emulator]\n").context("the group")?;
    Ok(lines.replace(&format!("subscription_id = {DEFAULT_SUBSCRIPTION}\n"), ""))
}

fn line(config: &Path, parameters: &str) -> String {
    format!("azure-vm: config={} {parameters}", config.display())
}

fn groups_are_complete_sets_and_the_plugin_line_beats_them(generation: Generation) -> Result<()> {
    let cloud = cloud()?;
    let access = access(&cloud)?;
    let text = format!(
        "[production]\n{access}subscription_id = {DEFAULT_SUBSCRIPTION}\n\n\
         [laboratory]\n{access}subscription_id = {LABORATORY}\n\
         [my site]\n{access}subscription_id = {LABORATORY}\nvm = LAB01\nabort_on_error = 1\n\
         [bare]\n"
    );
    let config = cloud.write_file("groups.conf", &text, 0o600)?;
    let line = |parameters: &str| line(&config, parameters);
    let trials = [
        Trial::selects(&line(""), &["prod01"]),
        Trial::selects(&line("group=production"), &["prod01"]),
        Trial::selects(&line("group=laboratory"), &["lab01"]),
        // Any parameter may stand in a group.
        Trial::selects(&line(r#"group="my site""#), &["lab01"])
            .says("vm=LAB01: taking virtual machine lab01"),
        Trial::selects(&line(r#"group="my site" vm=lab01"#), &["lab01"]),
        Trial::refused(
            &line("group=Laboratory"),
            "has no such group, only: production, laboratory, my site, bare",
        ),
        Trial::refused(
            &line("group=bare"),
            "missing tenant_id, subscription_id, application_id, application_secret: give them in the FileSet's Plugin \
             line or in group [bare]",
        ),
        // Key by key.
        Trial::selects(
            &line(&format!(
                "group=laboratory subscription_id={DEFAULT_SUBSCRIPTION}"
            )),
            &["prod01"],
        ),
        Trial::selects(&line(&format!("subscription_id={LABORATORY}")), &["lab01"]),
        Trial::selects(
            &line(&format!(
                "subscription_id={LABORATORY} application_id=awkward application_secret_file={}",
                cloud.write_file("awkward", AWKWARD, 0o600)?.display()
            )),
            &["lab01"],
        ),
    ];
    try_all(generation, cloud, &trials)
}

fn the_file_is_read_as_documented(generation: Generation) -> Result<()> {
    let cloud = cloud()?;
    let access = access(&cloud)?;
    let subscription = format!("subscription_id = {DEFAULT_SUBSCRIPTION}\n");
    let standard = format!("[g]\n{access}{subscription}");
    let file = |name: &str, text: &str| cloud.write_file(name, text, 0o600);
    let of = |name: &str, text: &str| Ok::<_, anyhow::Error>(line(&file(name, text)?, ""));
    // Blanks, empty lines, comments, line ends of Windows, keys in any case.
    let loose = format!("; a comment\n\n # another\n  [g]  \n{access}{subscription}")
        .replace(" = ", "\t  =  ")
        .replace("tenant_id", "Tenant_ID")
        .replace("authority", "\tAUTHORITY")
        .replace('\n', "  \r\n");
    let awkward = standard
        .replace(DEFAULT_CLIENT_ID, "awkward")
        .replace(DEFAULT_CLIENT_SECRET, AWKWARD);
    let readable = cloud.write_file("readable.conf", &standard, 0o644)?;
    let trials = [
        Trial::selects(&of("standard.conf", &standard)?, &["prod01"]),
        Trial::selects(&of("loose.conf", &loose)?, &["prod01"]),
        Trial::selects(&of("awkward.conf", &awkward)?, &["prod01"]).hides(AWKWARD),
        // There is no quoting, and no comment behind a value.
        Trial::fails(
            &of("quoted.conf", &format!("{standard}vm = \"prod01\"\n"))?,
            "no virtual machine is named \"prod01\"",
        )
        .says("the quotes around the value of parameter vm in group [g]"),
        Trial::fails(
            &of("behind.conf", &format!("{standard}vm = prod01 # ours\n"))?,
            "no virtual machine is named prod01 # ours",
        ),
        Trial::selects(
            &of("about.conf", &format!("{standard}group = other\n"))?,
            &["prod01"],
        )
        .says("parameter group in group [g]"),
        Trial::selects(
            &of(
                "twice.conf",
                &format!("{standard}vm = lab01\nVM = prod01\n"),
            )?,
            &["prod01"],
        )
        .says("parameter vm in group [g]"),
        Trial::selects(&line(&readable, ""), &["prod01"])
            .says("readable.conf is readable by everybody on this host"),
    ];
    try_all(generation, cloud, &trials)
}

fn a_file_that_cannot_be_used_is_refused_before_anything_is_asked(
    generation: Generation,
) -> Result<()> {
    let cloud = cloud()?;
    let access = access(&cloud)?;
    let standard = format!("[g]\n{access}subscription_id = {DEFAULT_SUBSCRIPTION}\n");
    // The plugin line alone would do, and must not be taken for all there is.
    let complete = standard
        .lines()
        .filter(|line| line.contains(" = "))
        .map(|line| line.replacen(" = ", "=", 1))
        .collect::<Vec<_>>()
        .join(" ");
    let folder = cloud.config_file();
    let folder = folder.parent().context("a folder")?;
    let mut trials = vec![
        Trial::refused(
            &line(&folder.join("missing.conf"), &complete),
            "missing.conf: there is no such file",
        ),
        Trial::refused(&line(folder, &complete), "it is not a regular file"),
        Trial::refused(&format!("azure-vm: {complete} group=g"), "group=g: "),
    ];
    for (name, text, reason) in [
        (
            "no-group.conf",
            "debug = 1\n".to_owned(),
            "line 1: stands before the first [group]",
        ),
        (
            "word.conf",
            format!("{standard}hunter2\n"),
            "expected key = value, [group], or a comment",
        ),
        (
            "header.conf",
            format!("[g\n{standard}"),
            "line 1: a group is written as [name]",
        ),
        (
            "twice.conf",
            format!("{standard}{standard}"),
            "group [g] stands more than once",
        ),
        (
            "control.conf",
            format!("{standard}vm = \u{7}hunter2\n"),
            "control character",
        ),
        (
            "colon.conf",
            format!("{standard}vm: hunter2 = 1\n"),
            "what stands before the = is not the name of a parameter",
        ),
    ] {
        let config = cloud.write_file(name, &text, 0o600)?;
        trials.push(Trial::refused(&line(&config, ""), reason).hides("hunter2"));
    }
    let unknown = cloud.write_file(
        "unknown.conf",
        &format!("{standard}secret = hunter2\n"),
        0o600,
    )?;
    trials.push(
        Trial::refused(&line(&unknown, ""), "unknown parameter secret in group [g]")
            .hides("hunter2"),
    );
    let latin = cloud.write_file("latin.conf", "", 0o600)?;
    fs::write(&latin, b"[g]\nvm = \xe4\n")?;
    trials.push(Trial::refused(&line(&latin, ""), "it is not UTF-8 text"));
    try_all(generation, cloud, &trials)
}

fn secrets_may_stand_in_files_of_their_own(generation: Generation) -> Result<()> {
    let cloud = cloud()?;
    let secret = |name: &str, text: &str, mode: u32| -> Result<String> {
        let path = cloud.write_file(name, text, mode)?;
        Ok(path.display().to_string())
    };
    let good = secret("good", &format!("{DEFAULT_CLIENT_SECRET}\n"), 0o600)?;
    let bare = secret("bare", DEFAULT_CLIENT_SECRET, 0o600)?;
    let open = secret("open", DEFAULT_CLIENT_SECRET, 0o644)?;
    let two = secret("two", "hunter2\nhunter3\n", 0o600)?;
    let key = secret(
        "key",
        &format!("AccountName=abc;AccountKey={DEFAULT_STORAGE_KEY}\n"),
        0o600,
    )?;
    let none = cloud.write_config("none.conf", &[("application_secret", None)])?;
    let text = fs::read_to_string(&none)?;
    let group = cloud.write_file(
        "group.conf",
        &format!("{text}application_secret_file = {good}\n"),
        0o600,
    )?;
    let file = |path: &str| line(&none, &format!("application_secret_file={path}"));
    let trials = [
        Trial::selects(&file(&good), &["prod01"]),
        Trial::selects(&file(&bare), &["prod01"]),
        Trial::selects(&line(&group, ""), &["prod01"]),
        Trial::selects(&file(&open), &["prod01"])
            .says("open of application_secret_file is readable by everybody"),
        Trial::selects(
            &line(&group, &format!("connection_key_file={key}")),
            &["prod01"],
        )
        .hides(DEFAULT_STORAGE_KEY),
        // The Plugin line wins, whichever way it takes.
        Trial::fails(
            &line(&group, "application_secret=hunter2"),
            "secret is wrong",
        )
        .says("application_secret stands in the Plugin line")
        .hides("hunter2"),
        Trial::refused(
            &file("/nonexistent/secret"),
            "read /nonexistent/secret: there is no such file",
        ),
        Trial::refused(&file("hunter2"), "give the path from the root on").hides("hunter2"),
        Trial::refused(&file(&two), "it holds more than one line").hides("hunter2"),
        Trial::refused(
            &line(
                &none,
                &format!("application_secret_file={good} application_secret=hunter2"),
            ),
            "application_secret and application_secret_file are both given: leave one out",
        )
        .hides("hunter2"),
        Trial::refused(
            &line(&group, &format!("connection_key_file={two}")),
            "parameter connection_key_file: ",
        )
        .hides("hunter2"),
    ];
    try_all(generation, cloud, &trials)
}

/// Where an administrator of this machine may have a file of his own.
fn the_file_at_the_usual_place_is_read(generation: Generation) -> Result<()> {
    if !can_mount()
        || [workspace(), &std::env::temp_dir()]
            .iter()
            .any(|path| path.starts_with("/opt"))
    {
        println!(
            "skipped: nothing can be mounted over /opt by this user, or what the daemon needs is there"
        );
        return Ok(());
    }
    let cloud = cloud()?;
    let access = access(&cloud)?;
    let groups = format!(
        "[production]\n{access}subscription_id = {DEFAULT_SUBSCRIPTION}\n
[laboratory]\n{access}subscription_id = {LABORATORY}\n"
    );
    let file = cloud.write_file("usual.conf", &groups, 0o600)?;
    let jobs = [
        JobDefinition::plugin("first", "azure-vm:"),
        JobDefinition::plugin("named", "azure-vm: group=laboratory"),
    ];
    let bench = Bench::start_jobs(generation, cloud, jobs.into(), |config| {
        config.usual_configuration = Some(file);
    })?;
    for (job, vm) in [("first", "prod01"), ("named", "lab01")] {
        let listing = bench.sandbox.list(job)?;
        ensure!(
            listing.vms() == [vm] && listing.messages().is_empty(),
            "{}",
            listing.text
        );
        let report = bench.sandbox.backup(job, "Full")?.clean()?;
        let label = format!("_{vm}.name");
        let files = bench.sandbox.files(report.id)?;
        ensure!(files[0].ends_with(&label), "{files:?}\n{}", report.log);
    }
    ensure!(bench.cloud.emulator().unmodelled().is_empty());
    Ok(())
}
