//! What the documentation promises an administrator, where only real daemons can prove it.

use std::fs;

use anyhow::{Context, Result, ensure};
use bacula_bench::{
    Bench, Cloud, Generation, JOB, RESTORED, RestoreRequest, Trial, on_both_generations, try_all,
    workspace,
};
use mock_server::{
    DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, DEFAULT_SUBSCRIPTION, DEFAULT_TENANT, Disk, GIB, MIB,
    Scenario, Vm,
};

on_both_generations!(
    filesets_of_the_documentation_select_what_they_say,
    two_virtual_machines_in_one_restore_are_refused,
    restore_options_are_used_or_their_loss_is_told,
    a_vm_that_cannot_be_saved_stops_the_job_only_with_abort_on_error,
);

fn world() -> Scenario {
    let os = Disk::new("web-os", GIB).pattern(1, 0, 16 * MIB);
    Scenario::new().vm(Vm::new("rg", "web", os))
}

fn filesets_of_the_documentation_select_what_they_say(generation: Generation) -> Result<()> {
    let names = ["keep.old", "ledger01", "oldweb", "web01"];
    let world = names.iter().fold(Scenario::new(), |world, name| {
        world.vm(Vm::new("rg", name, Disk::new(&format!("{name}-os"), GIB)))
    });
    let inline = format!(
        "tenant_id={DEFAULT_TENANT} subscription_id={DEFAULT_SUBSCRIPTION} application_id={DEFAULT_CLIENT_ID} \
         application_secret={DEFAULT_CLIENT_SECRET} connection_key=DefaultEndpointsProtocol=https;\
         AccountName=prodstage;AccountKey=ZXhhbXBsZQ==;EndpointSuffix=core.windows.net"
    );
    let cloud = Cloud::start(world)?;
    // Where the emulator is, and nothing else.
    let access = [
        "tenant_id",
        "subscription_id",
        "application_id",
        "application_secret",
    ];
    let endpoints = cloud.write_config("endpoints.conf", &access.map(|key| (key, None)))?;
    let inline = format!("azure-vm: config={} {inline}", endpoints.display());
    let groups = fs::read_to_string(cloud.config_file())?.replace("[emulator]", "[production]");
    let file = cloud.write_file("production.conf", &groups, 0o600)?;
    let examples = examples()?;
    // What the table above them says, and behind the last one a sentence.
    let selected: [&[&str]; 6] = [
        &names,
        &names,
        &["ledger01"],
        &["oldweb", "web01"],
        &["web01"],
        &["keep.old", "web01"],
    ];
    ensure!(examples.len() == selected.len(), "{examples:#?}");
    let inline = Trial::selects(&inline, &names)
        .says("application_secret stands in the Plugin line")
        .says("connection_key stands");
    let trials: Vec<_> = examples
        .iter()
        .zip(selected)
        .map(|(parameters, vms)| {
            let command = format!("azure-vm: config={} {parameters}", file.display());
            Trial::selects(&command, vms)
        })
        .chain([inline])
        .collect();
    try_all(generation, cloud, &trials)
}

/// The parameters of the examples in CONFIGURATION.md.
fn examples() -> Result<Vec<String>> {
    let text = fs::read_to_string(workspace().join("docs/CONFIGURATION.md"))?;
    let (_, examples) = text
        .split_once("\nExamples:\n\n```\n")
        .context("no examples")?;
    let (examples, _) = examples.split_once("```\n").context("no end")?;
    examples
        .lines()
        .map(|line| {
            let parameters = line.strip_prefix("Plugin = \"azure-vm:");
            let parameters = parameters.and_then(|rest| rest.strip_suffix('"'));
            Ok(parameters.with_context(|| line.to_owned())?.to_owned())
        })
        .collect()
}

fn two_virtual_machines_in_one_restore_are_refused(generation: Generation) -> Result<()> {
    let bench = Bench::start(
        generation,
        world().vm(Vm::new("rg", "ledger", Disk::new("ledger-os", GIB))),
        "",
    )?;
    let backup = bench.full()?;
    bench.cloud.delete_vm("web")?;
    bench.cloud.delete_vm("ledger")?;
    let report = bench.sandbox.restore(&RestoreRequest {
        jobs: vec![backup.id],
        ..RestoreRequest::default()
    })?;
    ensure!(matches!(report.status, 'f' | 'E'), "{}", report.log);
    let state = bench.cloud.state();
    ensure!(
        state.virtual_machines.is_empty() && state.disks.is_empty(),
        "{}",
        report.log
    );
    let uuids: Vec<String> = bench
        .sandbox
        .files(backup.id)?
        .iter()
        .filter_map(|name| {
            Some(
                name.strip_prefix("/@azure-vm/")?
                    .split_once("_")?
                    .0
                    .to_owned(),
            )
        })
        .filter(|uuid| uuid.len() == 36)
        .collect();
    ensure!(uuids.len() == 2, "{uuids:?}");
    ensure!(
        report
            .log
            .lines()
            .any(|line| uuids.iter().all(|uuid| line.contains(uuid))),
        "not both named:\n{}",
        report.log
    );
    ensure!(bench.cloud.emulator().unmodelled().is_empty());
    Ok(())
}

/// 9.6 with SQLite loses one text length of three.
fn restore_options_are_used_or_their_loss_is_told(generation: Generation) -> Result<()> {
    let bench = Bench::start(generation, world(), "vm=web")?;
    let backup = bench.full()?;
    let saved = bench.cloud.digests("web")?;
    let mut lost = 0;
    for name in ["new", "newe", "newer"] {
        let report = bench.sandbox.restore(&RestoreRequest {
            jobs: vec![backup.id],
            ..RestoreRequest::named(name)
        })?;
        if report.is_clean() {
            ensure!(bench.cloud.digests(name)? == saved, "{}", report.log);
            bench.cloud.delete_vm(name)?;
        } else {
            ensure!(
                report.lines_with("restore options").len() == 1,
                "{}",
                report.log
            );
            lost += 1;
        }
        ensure!(bench.cloud.state().virtual_machines.len() == 1);
    }
    let expected = match generation {
        Generation::V9_6 => 1,
        Generation::V15_0 => 0,
    };
    ensure!(lost == expected, "{lost} texts were lost");
    ensure!(bench.cloud.emulator().unmodelled().is_empty());
    Ok(())
}

fn a_vm_that_cannot_be_saved_stops_the_job_only_with_abort_on_error(
    generation: Generation,
) -> Result<()> {
    // Sectors of 4096 bytes cannot be saved; the names make it the first of two.
    let mut disk = Disk::new("bad-os", GIB);
    disk.logical_sector_size = Some(4096);
    let bad = Vm::new("rg", "a-bad", disk);
    let bench = Bench::start_with(generation, world().vm(bad), "", |config| {
        let mut strict = config.jobs[0].clone();
        strict.name = "strict".into();
        strict.include = strict
            .include
            .replace("azure-vm: ", "azure-vm: abort_on_error=1 ");
        config.jobs.push(strict);
    })?;
    let report = bench.sandbox.backup(JOB, "Full")?;
    ensure!(report.status == 'T' && report.errors > 0, "{}", report.log);
    ensure!(!report.lines_with("a-bad").is_empty(), "{}", report.log);
    ensure!(
        report.log.contains("Backup OK -- with warnings"),
        "{}",
        report.log
    );
    bench.restore_equals(&[report.id], &bench.cloud.digests("web")?)?;
    let strict = bench.sandbox.backup("strict", "Full")?;
    ensure!(strict.status == 'f', "{}", strict.log);
    ensure!(bench.sandbox.files(strict.id)?.is_empty(), "{}", strict.log);
    ensure!(bench.cloud.emulator().unmodelled().is_empty());
    Ok(())
}

/// 9.6 hands blocks with offsets of later versions over as a plain stream, and would call the damage good.
#[test]
fn images_of_a_newer_file_daemon_are_refused_by_9_6() -> Result<()> {
    let mut bench = Bench::start(Generation::V15_0, world(), "vm=web")?;
    let backup = bench.full()?;
    bench.sandbox.replace_file_daemon(Generation::V9_6)?;
    let report = bench.sandbox.restore(&RestoreRequest {
        jobs: vec![backup.id],
        ..RestoreRequest::named(RESTORED)
    })?;
    ensure!(
        matches!(report.status, 'f' | 'E'),
        "status {}\n{}",
        report.status,
        report.log
    );
    let lines = report.lines_with("come without their offsets");
    ensure!(lines.len() == 1, "{}", report.log);
    ensure!(bench.cloud.state().vm(RESTORED).is_none(), "{}", report.log);
    // Nothing of the first daemon is there any more, nor in Azure; another one of the writer's version needs nothing.
    bench.sandbox.replace_file_daemon(Generation::V15_0)?;
    bench.cloud.delete_snapshots()?;
    bench.restore_equals(&[backup.id], &bench.cloud.digests("web")?)?;
    ensure!(bench.cloud.emulator().unmodelled().is_empty());
    Ok(())
}
