//! The Plugin line: what the Director's configuration, the daemons and the plugin make of it together.

use anyhow::{Result, ensure};
use bacula_bench::{
    Bench, Cloud, Generation, JOB, Trial, USUAL_CONFIGURATION, on_both_generations, try_all,
};
use mock_server::{
    DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, DEFAULT_STORAGE_KEY, DEFAULT_TENANT, Disk, GIB, MIB,
    Principal, Scenario, Tenant, Vm,
};

on_both_generations!(
    the_plugin_line_is_read_as_documented,
    what_is_wrong_in_the_plugin_line_is_refused_before_anything_is_asked,
    what_is_missing_is_named_at_once,
    secrets_and_ids_reach_azure_as_they_are,
    a_secret_in_the_plugin_line_is_warned_of,
);

const ACCESS: [&str; 4] = [
    "tenant_id",
    "subscription_id",
    "application_id",
    "application_secret",
];

fn world() -> Scenario {
    ["alpha", "beta"]
        .iter()
        .fold(Scenario::new(), |world, name| {
            let os = Disk::new(&format!("{name}-os"), GIB).pattern(1, 0, MIB);
            world.vm(Vm::new("rg", name, os))
        })
}

fn the_plugin_line_is_read_as_documented(generation: Generation) -> Result<()> {
    let cloud = Cloud::start(world().storage_account("stage"))?;
    let both = ["alpha", "beta"];
    let line = |parameters: &str| cloud.plugin_command(parameters);
    let config = cloud.config_file();
    let config = config.display();
    let key = format!(
        "connection_key=DefaultEndpointsProtocol=https;AccountName=prodstage;AccountKey={DEFAULT_STORAGE_KEY};EndpointSuffix=core.windows.net"
    );
    let trials = [
        Trial::selects(&format!("azure-vm:config={config}"), &both),
        Trial::selects(
            &format!("azure-vm: \t vm=alpha   config={config}  "),
            &["alpha"],
        ),
        Trial::selects(&line("VM=alpha Exclude=beta"), &["alpha"]),
        Trial::selects(&line(r#"vm="alpha""#), &["alpha"]),
        // The second = is part of the value, and so is everything else but a blank.
        Trial::selects(&line("include=(?=al).*|x=y;~#-"), &["alpha"]),
        Trial::selects(&line(r#"include=al"?\w+'?"#), &["alpha"]),
        Trial::selects(&line(r#"include="(alpha|a b)""#), &["alpha"]),
        Trial::selects(&line(r"include=\Qalpha\E|[a-z&&[b]]eta"), &both),
        Trial::selects(&line("vm=beta vm=alpha"), &["alpha"]).says("vm is given more than once"),
        Trial::selects(&line("abort_on_error"), &both),
        Trial::selects(&line("abort_on_error=1"), &both),
        Trial::selects(&line("abort_on_error=0 debug=0"), &both),
        Trial::selects(&line("debug=9"), &both),
        Trial::selects(&line("transfer=direct"), &both),
        Trial::selects(&line("transfer=blob"), &both),
        Trial::selects(&line(&key), &both).says("connection_key stands in the Plugin line"),
    ];
    try_all(generation, cloud, &trials)
}

fn what_is_wrong_in_the_plugin_line_is_refused_before_anything_is_asked(
    generation: Generation,
) -> Result<()> {
    let cloud = Cloud::start(world())?;
    let trials: Vec<_> = [
        (
            "secret_id=x",
            "unknown parameter secret_id: did you mean application_secret?",
        ),
        (
            "exlude=beta",
            "unknown parameter exlude: did you mean exclude?",
        ),
        ("vms=alpha", "unknown parameter vms: did you mean vm?"),
        ("colour=blue", "unknown parameter colour"),
        ("vm", "parameter vm has no value: write vm=VALUE"),
        (
            "vm=alpha beta",
            "a word of the plugin command is not of the form key=value",
        ),
        (
            "abort_on_error=2",
            "parameter abort_on_error: 2 is neither 0 nor 1",
        ),
        (
            "abort_on_error=yes",
            "parameter abort_on_error: yes is neither 0 nor 1",
        ),
        (
            "debug=10",
            "parameter debug: 10 is not a number from 0 to 9",
        ),
        (
            "debug=-1",
            "parameter debug: -1 is not a number from 0 to 9",
        ),
        (
            "debug=1.5",
            "parameter debug: 1.5 is not a number from 0 to 9",
        ),
        ("debug=", "parameter debug: "),
        (
            "transfer=copy",
            "parameter transfer: copy is unknown: possible are direct and blob",
        ),
        (
            "transfer=blob",
            "missing connection_key: give it in the FileSet's Plugin line or in group [emulator]",
        ),
        (
            "new_hostname=a/b",
            "parameter new_hostname: a/b is not a name that Azure accepts",
        ),
    ]
    .map(|(parameters, reason)| Trial::refused(&cloud.plugin_command(parameters), reason))
    .into_iter()
    // Of the key nothing is shown, and without transfer=blob it is checked as well.
    .chain(["", "transfer=blob "].map(|transfer| {
        let parameters = format!("{transfer}connection_key=AccountName=abc;AccountKey=hunter2!");
        Trial::refused(
            &cloud.plugin_command(&parameters),
            "parameter connection_key: ",
        )
        .hides("hunter2")
    }))
    .collect();
    try_all(generation, cloud, &trials)
}

fn what_is_missing_is_named_at_once(generation: Generation) -> Result<()> {
    let cloud = Cloud::start(world())?;
    let without = |name: &str, keys: &[&str]| -> Result<String> {
        let changes: Vec<_> = keys.iter().map(|&key| (key, None)).collect();
        let config = cloud.write_config(name, &changes)?;
        Ok(format!("azure-vm: config={}", config.display()))
    };
    let mut trials = Vec::new();
    for key in ACCESS {
        trials.push(Trial::refused(
            &without(&format!("{key}.conf"), &[key])?,
            &format!("missing {key}: give it"),
        ));
    }
    let none = without("none.conf", &ACCESS)?;
    trials.push(Trial::refused(
        &none,
        "missing tenant_id, subscription_id, application_id, application_secret: give them",
    ));
    // Together with what is wrong, and without any value.
    trials.push(
        Trial::refused(
            &format!("{none} tenant_id=hunter2 debug=11"),
            "missing subscription_id, application_id, application_secret: give them",
        )
        .says("parameter debug: 11 is not a number")
        .hides("hunter2"),
    );
    // Nothing behind the colon: then all comes from the default file, or nothing does.
    if !std::fs::exists(USUAL_CONFIGURATION)? {
        trials.push(Trial::refused(
            "azure-vm:",
            &format!(
                "missing tenant_id, subscription_id, application_id, application_secret: give them in the FileSet's \
                 Plugin line or in a group of the configuration file {USUAL_CONFIGURATION}, which does not exist"
            ),
        ));
    }
    try_all(generation, cloud, &trials)
}

/// Secrets of all kinds of printable characters; a blank would need quotes, and is tried in the configuration file.
const SECRETS: [&str; 6] = [
    "p~-_.secret=(1)*^;#:,==",
    r#"a"b'c"d`"#,
    r"back\slash\\twice\",
    "[brackets]{braces}<angles>",
    "%41%s$HOME${HOME}!|&+?/@",
    "äöü€",
];

fn secrets_and_ids_reach_azure_as_they_are(generation: Generation) -> Result<()> {
    let mut world = world();
    let principal = |client_id: &str, client_secret: &str| Principal {
        client_id: client_id.to_owned(),
        client_secret: client_secret.to_owned(),
        subscriptions: None,
        denied_actions: Vec::new(),
    };
    // Ids of another form than Azure's are not for the plugin to judge.
    let id = |number: usize| format!("Application.{number}");
    let principals = SECRETS.iter().enumerate();
    let principals = principals.map(|(number, secret)| principal(&id(number), secret));
    world.tenants = vec![Tenant {
        id: DEFAULT_TENANT.to_owned(),
        principals: std::iter::once(principal(DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET))
            .chain(principals)
            .collect(),
    }];
    let cloud = Cloud::start(world)?;
    let warning = "application_secret stands in the Plugin line";
    let mut trials: Vec<_> = SECRETS
        .iter()
        .enumerate()
        .map(|(number, secret)| {
            let parameters = format!("application_id={} application_secret={secret}", id(number));
            Trial::selects(&cloud.plugin_command(&parameters), &["alpha", "beta"]).says(warning)
        })
        .collect();
    // A login that fails shows that the others were no chance.
    let parameters = format!("application_id={} application_secret=x", id(0));
    trials.push(Trial::fails(&cloud.plugin_command(&parameters), "secret is wrong").says(warning));
    for (key, value) in [
        ("tenant_id", "contoso.example"),
        ("application_id", "No-GUID-at-all"),
        ("subscription_id", "(my)~subscription"),
    ] {
        let parameters = format!("{key}={value}");
        trials.push(Trial::fails(&cloud.plugin_command(&parameters), value));
    }
    try_all(generation, cloud, &trials)
}

fn a_secret_in_the_plugin_line_is_warned_of(generation: Generation) -> Result<()> {
    let parameters = format!("vm=alpha application_secret={DEFAULT_CLIENT_SECRET}");
    let bench = Bench::start(generation, world(), &parameters)?;
    let report = bench.sandbox.backup(JOB, "Full")?.clean()?;
    let lines = report.lines_with("application_secret stands in the Plugin line");
    ensure!(
        lines.len() == 1 && lines[0].contains("Warning: azure-vm: "),
        "{}",
        report.log
    );
    ensure!(
        !report.log.contains(DEFAULT_CLIENT_SECRET),
        "{}",
        report.log
    );
    ensure!(bench.cloud.emulator().unmodelled().is_empty());
    Ok(())
}
