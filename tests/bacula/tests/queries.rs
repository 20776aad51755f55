//! Listings and questions as a person asks them in bconsole.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bacula_bench::{Bench, Generation, on_both_generations};
use mock_server::{Action, DEFAULT_CLIENT_SECRET, Disk, Fault, GIB, MIB, PowerState, Scenario, Vm};

on_both_generations!(
    vms_and_disks_are_listed,
    questions_are_answered,
    every_failure_is_an_answer_in_bounded_time,
    every_page_of_vms_is_listed
);

/// Longest time that a listing may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Longest time that an answer may take.
const PATIENCE: Duration = Duration::from_secs(90);

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

fn ask(bench: &Bench, name: &str, command: &str) -> Result<String> {
    let query = format!(".query plugin=\"{command}\" client=bench-fd parameter={name}\n");
    bench.sandbox.console(&query, PATIENCE)
}

/// The lines of an answer, which must be all that came of the plugin, and in which nothing stands before the first.
fn answer(text: &str) -> Result<Vec<&str>> {
    let lines = text.lines().skip_while(|line| !line.starts_with(".query "));
    let lines: Vec<_> = lines.skip(1).filter(|line| line.contains('=')).collect();
    ensure!(lines.first() == Some(&"info=Query"), "{text}");
    ensure!(
        lines
            .iter()
            .filter(|line| line.starts_with("info=Query"))
            .count()
            == 1,
        "{text}"
    );
    Ok(lines[1..].to_vec())
}

/// 9.6 has no such command; there `azure-vm query` gives the same answers (see the tests of the command line).
fn questions_are_answered(generation: Generation) -> Result<()> {
    let bench = bench(generation)?;
    let ask =
        |name: &str, parameters: &str| ask(&bench, name, &bench.cloud.plugin_command(parameters));
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
                [" level=Full ", " age=", " size="]
                    .iter()
                    .all(|part| line.contains(part))
                    && line.contains(&format!(" disk={disk} "))
            });
        ensure!(shown.count() == 1, "{disk}:\n{text}");
    }
    Ok(())
}

fn every_failure_is_an_answer_in_bounded_time(generation: Generation) -> Result<()> {
    let bench = bench(generation)?;
    let configured = |name: &str, changes: &[(&str, Option<&str>)]| -> Result<String> {
        let config = bench.cloud.write_config(name, changes)?;
        Ok(format!("azure-vm: config={}", config.display()))
    };
    let cases = [
        configured(
            "missing.conf",
            &[("application_secret", None), ("tenant_id", None)],
        )?,
        configured("secret.conf", &[("application_secret", Some("wrong"))])?,
        // Refused at once on any usual machine.
        configured(
            "endpoint.conf",
            &[("authority", Some("https://127.0.0.1:9"))],
        )?,
        configured("certificate.conf", &[("ca_file", None)])?,
        bench.cloud.plugin_command("secret_id=x"),
        "azure-vm: config=/nonexistent/azure-vm.conf".to_owned(),
    ];
    if generation == Generation::V9_6 {
        ensure!(ask(&bench, "CONNECTION", &cases[0])?.contains("is an invalid command"));
        return Ok(());
    }
    for command in cases {
        let text = ask(&bench, "connection", &command)?;
        ensure!(answer(&text)? == ["CONNECTION=NOK"], "{command}: {text}");
        let text = ask(&bench, "VM", &command)?;
        ensure!(
            matches!(answer(&text)?.as_slice(), [line] if line.starts_with("error=")),
            "{command}: {text}"
        );
    }
    // With this one it is possible to log in.
    let unknown = configured("subscription.conf", &[("subscription_id", Some("unknown"))])?;
    let text = ask(&bench, "CONNECTION", &unknown)?;
    ensure!(answer(&text)? == ["CONNECTION=OK"], "{text}");
    let text = ask(&bench, "VM", &unknown)?;
    ensure!(
        answer(&text)?
            .first()
            .is_some_and(|line| line.starts_with("error=") && line.contains("unknown")),
        "{text}"
    );
    // An endpoint that never answers.
    let never = Action::delay(Duration::from_secs(3600));
    bench.cloud.emulator().fault(Fault::new("Token", never));
    let text = ask(&bench, "CONNECTION", &bench.cloud.plugin_command(""))?;
    ensure!(answer(&text)? == ["CONNECTION=NOK"], "{text}");
    ensure_untouched(&bench)
}

/// The emulator's pages have 100 entries. What the Plugin line selects does not matter.
fn every_page_of_vms_is_listed(generation: Generation) -> Result<()> {
    let names: Vec<_> = (0..230).map(|number| format!("vm{number:03}")).collect();
    let world = names.iter().rev().fold(Scenario::new(), |world, name| {
        world.vm(Vm::new("rg", name, Disk::new(&format!("{name}-os"), GIB)))
    });
    let bench = Bench::start(generation, world, "")?;
    let command = bench.cloud.plugin_command("vm=vm007 exclude=.*");
    let text = ask(&bench, "VM", &command)?;
    if generation == Generation::V9_6 {
        ensure!(text.contains("is an invalid command"), "{text}");
        return Ok(());
    }
    let expected: Vec<_> = names.iter().map(|name| format!("VM={name}")).collect();
    ensure!(answer(&text)? == expected, "{text}");
    // Asks nobody, and keeps the order of the file.
    let groups = bench
        .cloud
        .write_file("groups.conf", "[zeta]\n[my site]\n[alpha]\n", 0o600)?;
    bench.cloud.emulator().reset_counters();
    let text = ask(
        &bench,
        "group",
        &format!("azure-vm: config={}", groups.display()),
    )?;
    ensure!(
        answer(&text)? == ["GROUP=zeta", "GROUP=my site", "GROUP=alpha"],
        "{text}"
    );
    ensure!(bench.cloud.emulator().counters().operations.is_empty());
    ensure_untouched(&bench)
}
