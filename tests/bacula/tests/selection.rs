//! Which VMs a Plugin line selects.

use anyhow::{Context, Result, ensure};
use bacula_bench::{Bench, Cloud, Generation, JOB, Trial, on_both_generations, try_all};
use mock_server::{Disk, GIB, MIB, PowerState, Scenario, Vm};

on_both_generations!(
    every_combination_selects_what_the_table_says,
    expressions_are_those_of_java,
    expressions_that_cannot_be_honoured_are_refused_before_anything_is_asked,
    names_that_are_not_there_are_errors_with_a_hint,
    vms_of_one_name_and_in_any_power_state_are_saved,
    more_vms_than_a_page_holds_are_all_listed,
);

fn world(names: &[&str]) -> Scenario {
    names.iter().fold(Scenario::new(), |world, name| {
        world.vm(Vm::new("rg", name, Disk::new(&format!("{name}-os"), GIB)))
    })
}

/// The rules of CONFIGURATION.md, over what the expressions below match.
fn every_combination_selects_what_the_table_says(generation: Generation) -> Result<()> {
    let names = ["keep", "other", "web", "web.old"];
    let cloud = Cloud::start(world(&names))?;
    type Given = Option<(&'static str, &'static [&'static str])>;
    let includes: [Given; 3] = [
        None,
        Some(("(.*)web(.*)", &["web", "web.old"])),
        Some(("keep|web", &["keep", "web"])),
    ];
    let excludes: [Given; 3] = [
        None,
        Some(("(.*)old", &["web.old"])),
        Some(("keep|other", &["keep", "other"])),
    ];
    let mut trials = Vec::new();
    for vm in [None, Some("keep")] {
        for include in includes {
            for exclude in excludes {
                let saved = |name: &&str| {
                    vm == Some(*name)
                        || include.map_or(vm.is_none(), |(_, matching)| matching.contains(name))
                            && !exclude.is_some_and(|(_, matching)| matching.contains(name))
                };
                let expected: Vec<_> = names.into_iter().filter(saved).collect();
                let item = |key: &str, value: Option<&str>| {
                    value.map_or(String::new(), |value| format!(" {key}={value}"))
                };
                let text = |given: Given| given.map(|(text, _)| text);
                let parameters = item("exclude", text(exclude))
                    + &item("include", text(include))
                    + &item("vm", vm);
                trials.push(Trial::selects(
                    &cloud.plugin_command(&parameters),
                    &expected,
                ));
            }
        }
    }
    ensure!(trials.len() == 18);
    try_all(generation, cloud, &trials)
}

const NAMES: [&str; 6] = ["Web03", "db-db", "keep.old", "oldweb", "web01", "web02"];

fn expressions_are_those_of_java(generation: Generation) -> Result<()> {
    let cloud = Cloud::start(world(&NAMES))?;
    let trials = [
        ("(.*)web(.*)", &["oldweb", "web01", "web02"][..]),
        ("web01|db-db", &["db-db", "web01"]),
        (r"web\d{2}", &["web01", "web02"]),
        (r"(?i)web\d+", &["Web03", "web01", "web02"]),
        ("(?i:W)eb0[1-3]", &["Web03", "web01", "web02"]),
        // Look-around.
        ("(?!old).*web.*", &["web01", "web02"]),
        ("(?=.*0)(?!W).*", &["web01", "web02"]),
        (
            ".*(?<!old)",
            &["Web03", "db-db", "oldweb", "web01", "web02"],
        ),
        ("old(?<=ld)web", &["oldweb"]),
        // Possessive and atomic: nothing is given back.
        (r"\w++", &["Web03", "oldweb", "web01", "web02"]),
        ("[a-z]*+01", &["web01"]),
        ("(?>we|web)b0.", &["web01", "web02"]),
        (r"\Qkeep.old\E", &["keep.old"]),
        (r"\p{Alpha}+\p{Digit}+", &["Web03", "web01", "web02"]),
        (r"\p{Lu}\P{Lu}+", &["Web03"]),
        // Back-references.
        (r"(..)-\1", &["db-db"]),
        (r"(?<half>..)-\k<half>", &["db-db"]),
        // Intersection of classes.
        ("[a-z&&[^o]].*", &["db-db", "keep.old", "web01", "web02"]),
        ("[^-.]{6}", &["oldweb"]),
    ]
    .map(|(pattern, expected)| {
        Trial::selects(
            &cloud.plugin_command(&format!("include={pattern}")),
            expected,
        )
    });
    try_all(generation, cloud, &trials)
}

fn expressions_that_cannot_be_honoured_are_refused_before_anything_is_asked(
    generation: Generation,
) -> Result<()> {
    let cloud = Cloud::start(world(&NAMES))?;
    let trials = [
        (
            "include=(web",
            "regular expression (web: parenthesis is not closed",
        ),
        ("include=web)", "regular expression web): "),
        ("include=*web", "regular expression *web: "),
        ("exclude=[a-", "regular expression [a-: "),
        (
            r"exclude=(?i)(a)\1",
            "back-references with the flag i are not supported (character 8)",
        ),
        (
            "include=a(?<=b*)",
            "a look-behind must not look back without limit",
        ),
        (r"include=\Xx", r"escape \X is not supported (character 1)"),
        // Also beside a name that needs no verdict.
        (
            r"vm=web01 exclude=\p{Latin}",
            r"property \p{Latin} is not supported",
        ),
    ]
    .map(|(parameters, reason)| Trial::refused(&cloud.plugin_command(parameters), reason));
    try_all(generation, cloud, &trials)
}

fn names_that_are_not_there_are_errors_with_a_hint(generation: Generation) -> Result<()> {
    let cloud =
        Cloud::start(world(&NAMES).vm(Vm::new("other", "WEB02", Disk::new("other-os", GIB))))?;
    let line = |parameters: &str| cloud.plugin_command(parameters);
    let trials = [
        // Whole names, and case counts.
        Trial::fails(
            &line("include=web"),
            "include=web matches no whole name, only a part, as in oldweb: write include=(.*)web(.*)",
        ),
        Trial::fails(&line("include=KEEP.OLD"), "passes include=KEEP.OLD"),
        Trial::fails(
            &line("include=x(.*)"),
            "none of 7 virtual machines passes include=x(.*)",
        ),
        Trial::fails(
            &line("include=web(.*) exclude=(.*)web(.*)"),
            "none of 7 virtual machines passes include=web(.*) and exclude=(.*)web(.*)",
        ),
        Trial::fails(
            &line("exclude=(.*)"),
            "exclude removes all 7 virtual machines",
        ),
        Trial::selects(&line("exclude=old vm=web01"), &["web01"])
            .says("exclude=old matches no whole name, only a part"),
        Trial::fails(&line("vm=web04"), "no virtual machine is named web04"),
        Trial::fails(
            &line("vm=web04 include=(.*)web(.*)"),
            "no virtual machine is named web04",
        ),
        // A name is no expression.
        Trial::fails(&line("vm=web0."), "no virtual machine is named web0."),
        Trial::selects(&line("vm=WEB03"), &["Web03"])
            .says("vm=WEB03: taking virtual machine Web03 (resource group rg)"),
        Trial::selects(&line("vm=web02"), &["web02"]),
        Trial::fails(
            &line("vm=Web02"),
            "no virtual machine is named exactly Web02, but several are when case is ignored",
        ),
    ];
    try_all(generation, cloud, &trials)
}

fn vms_of_one_name_and_in_any_power_state_are_saved(generation: Generation) -> Result<()> {
    let twin = |group: &str, state| {
        let os = Disk::new(&format!("os-of-{group}"), 24 * MIB)
            .in_group(group)
            .pattern(1, 0, MIB);
        Vm::new(group, "twin", os).power_state(state)
    };
    let world = Scenario::new()
        .vm(twin("rg-a", PowerState::Running).vm_id("3D1F0C52-7A44-4E0E-9A53-8B1D6C2F9E10"))
        .vm(twin("rg-b", PowerState::Deallocated))
        .vm(twin("rg-c", PowerState::Stopped));
    let bench = Bench::start(generation, world, "vm=twin")?;
    let states = || {
        let machines = bench.cloud.state().virtual_machines;
        machines.iter().map(|vm| vm.power_state).collect::<Vec<_>>()
    };
    let before = states();
    let report = bench.sandbox.backup(JOB, "Full")?.clean()?;
    ensure!(states() == before, "a VM was started or stopped");
    ensure!(
        report
            .log
            .contains("3 virtual machines are named twin, in the resource groups rg-a, rg-b, rg-c"),
        "{}",
        report.log
    );
    for group in ["rg-a", "rg-b", "rg-c"] {
        let saving = format!("saving virtual machine twin (resource group {group})");
        ensure!(report.log.contains(&saving), "{}", report.log);
    }
    // One after the other, each below its own UUID.
    let files = bench.sandbox.files(report.id)?;
    ensure!(files.len() == 12, "{files:?}");
    let mut uuids = Vec::new();
    for vm in files.chunks(4) {
        let uuid = vm[0]
            .strip_prefix("/@azure-vm/")
            .and_then(|name| name.strip_suffix("_twin.name"))
            .with_context(|| format!("{files:?}"))?;
        ensure!(vm.iter().all(|file| file.contains(uuid)), "{files:?}");
        uuids.push(uuid);
    }
    let mut ids: Vec<_> = bench.cloud.state().virtual_machines;
    ids.sort_by(|a, b| a.resource_group.cmp(&b.resource_group));
    // In lower case with dashes, whatever Azure writes.
    let expected: Vec<_> = ids.iter().map(|vm| vm.vm_id.to_lowercase()).collect();
    ensure!(uuids == expected, "{uuids:?} instead of {expected:?}");
    ensure!(bench.cloud.emulator().unmodelled().is_empty());
    Ok(())
}

/// The emulator's pages have 100 entries.
fn more_vms_than_a_page_holds_are_all_listed(generation: Generation) -> Result<()> {
    let names: Vec<_> = (0..230).map(|number| format!("vm{number:03}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let cloud = Cloud::start(world(&names))?;
    let trials = [
        Trial::selects(&cloud.plugin_command(""), &names),
        Trial::selects(&cloud.plugin_command("vm=vm229"), &["vm229"]),
        Trial::selects(
            &cloud.plugin_command("include=vm.*5"),
            &names
                .iter()
                .copied()
                .filter(|name| name.ends_with('5'))
                .collect::<Vec<_>>(),
        ),
    ];
    try_all(generation, cloud, &trials)
}
