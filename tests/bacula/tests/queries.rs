//! Listings and questions as a person asks them in bconsole.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bacula_bench::{Bench, Generation, on_both_generations};
use mock_server::{DEFAULT_CLIENT_SECRET, Disk, GIB, MIB, PowerState, Scenario, Vm};

on_both_generations!(vms_and_disks_are_listed, questions_are_answered);

const LIMIT: Duration = Duration::from_secs(60);

fn bench(generation: Generation) -> Result<Bench> {
    let os = Disk::new("web-os", GIB).pattern(1, 0, 4 * MIB);
    let mut web = Vm::new("rg", "web", os).data_disk(3, Disk::new("web-data", 2 * GIB));
    web.power_state = PowerState::Deallocated;
    let small = Vm::new("rg", "Alpha", Disk::new("alpha-os", GIB));
    Bench::start(
        generation,
        Scenario::new().vm(web).vm(small),
        "exclude=nothing",
    )
}

/// Neither listing makes anything, in Azure or on this host.
fn ensure_untouched(bench: &Bench) -> Result<()> {
    let state = bench.cloud.state();
    ensure!(state.snapshots.is_empty() && state.grants.is_empty());
    ensure!(
        !bench
            .sandbox
            .file_daemon_directory()
            .join("azure-vm")
            .exists()
    );
    Ok(())
}

fn vms_and_disks_are_listed(generation: Generation) -> Result<()> {
    let bench = bench(generation)?;
    let command = bench.cloud.plugin_command("");
    for listing in [
        format!(".ls client=bench-fd plugin=\"{command}\" path=/\n"),
        "estimate job=azure level=Full listing\n".to_owned(),
        "estimate job=azure level=Incremental listing\n".to_owned(),
    ] {
        let text = bench.sandbox.console(&listing, LIMIT)?;
        for (end, size) in [
            ("_web.name", "0"),
            ("_Alpha.name", "0"),
            ("_osdisk", "1073741824"),
            ("_0", "2147483648"),
        ] {
            let line = text
                .lines()
                .find(|line| line.contains("/@azure-vm/") && line.trim_end().ends_with(end))
                .with_context(|| format!("{end} is not listed by {listing}\n{text}"))?;
            ensure!(
                line.split_whitespace()
                    .any(|word| word.replace(',', "") == size),
                "{line}"
            );
        }
        ensure!(!text.contains(DEFAULT_CLIENT_SECRET));
        ensure_untouched(&bench)?;
    }
    Ok(())
}

/// 9.6 has no such command; there `azure-vm query` gives the same answers (see the tests of the command line).
fn questions_are_answered(generation: Generation) -> Result<()> {
    let bench = bench(generation)?;
    let ask = |name: &str, parameters: &str| {
        let command = bench.cloud.plugin_command(parameters);
        let query = format!(".query plugin=\"{command}\" client=bench-fd parameter={name}\n");
        bench.sandbox.console(&query, LIMIT)
    };
    if generation == Generation::V9_6 {
        let text = ask("VM", "")?;
        ensure!(text.contains("is an invalid command"), "{text}");
        return Ok(());
    }
    let groups = bench.sandbox.root().join("groups.conf");
    fs::write(&groups, "[zeta]\n[alpha]\n")?;
    let of_file = format!("config={}", groups.display());
    for (name, parameters, expected) in [
        ("CONNECTION", "", "info=Query\nCONNECTION=OK\n"),
        // Also a warning, about the secret in the line: it must not stand in the answer.
        (
            "connection",
            "application_secret=nonsense",
            "info=Query\nCONNECTION=NOK\n",
        ),
        ("VM", "vm=none", "info=Query\nVM=Alpha\nVM=web\n"),
        ("GROUP", &of_file, "info=Query\nGROUP=zeta\nGROUP=alpha\n"),
        (
            "DISK",
            "",
            "info=Query\nDISK=alpha-os vm=Alpha slot=os size=1073741824 sku=Premium_LRS\n\
             DISK=web-os vm=web slot=os size=1073741824 sku=Premium_LRS\n\
             DISK=web-data vm=web slot=3 size=2147483648 sku=Premium_LRS\n",
        ),
        (
            "COLOUR",
            "",
            "info=Query\nQuery not recognized, possible value={CONNECTION, VM}\ninfo=",
        ),
        ("VERSION", "", "info=Query\nazure-cli="),
    ] {
        let text = ask(name, parameters)?;
        ensure!(text.contains(expected), "{name} is answered with\n{text}");
        let mut messages = text
            .lines()
            .filter(|line| line.contains("azure-vm: ") && !line.contains(".query"));
        ensure!(messages.next().is_none(), "a message disturbs\n{text}");
        ensure!(!text.contains(DEFAULT_CLIENT_SECRET));
    }
    ensure_untouched(&bench)?;

    bench.full()?;
    let text = ask("SNAPSHOT", "")?;
    for disk in ["alpha-os", "web-os", "web-data"] {
        let shown = text
            .lines()
            .filter(|line| line.starts_with("SNAPSHOT=azvm-"))
            .filter(|line| {
                line.contains(&format!(" disk={disk} ")) && line.contains(" level=Full ")
            });
        ensure!(shown.count() == 1, "{disk}:\n{text}");
    }
    Ok(())
}
