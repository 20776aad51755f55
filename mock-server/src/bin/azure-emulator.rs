//! The emulator as a program: start it, point a client at it, look at it through `/_emulator/`.
use clap::Parser;
use mock_server::{Config, Emulator, Link, OperationPolicy, Scenario};
use std::{
    error::Error, fs, io::Write, net::IpAddr, path::PathBuf, process::ExitCode, time::Duration,
};

/// Emulates the parts of Azure that backup and restore of virtual machines need.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Scenario file (JSON; see the README) with what exists at the start
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// Address to listen on
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    listen: IpAddr,
    /// Port for plain HTTP; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 10080)]
    http_port: u16,
    /// Port for HTTPS; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 10443)]
    https_port: u16,
    /// Write the certificate to trust to this file (PEM)
    #[arg(long, value_name = "FILE")]
    ca_out: Option<PathBuf>,
    /// Write the addresses to this file (JSON) once requests are answered
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Keep what clients write in this directory instead of in memory
    #[arg(long, value_name = "DIR")]
    spool_dir: Option<PathBuf>,
    /// Wait before each answer
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0)]
    latency: u64,
    /// Bytes per second and direction of each connection
    #[arg(long, value_name = "BYTES")]
    bandwidth: Option<u64>,
    /// Polls that find a long-running operation in progress
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    polls: u32,
    /// Validity of access tokens
    #[arg(long, value_name = "SECONDS", default_value_t = 3599)]
    token_lifetime: u64,
    /// Entries of one page of a Resource Manager list
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    arm_page_size: usize,
    /// Ranges of one page of a page list
    #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
    page_range_limit: usize,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = format!("azure-emulator: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            // Nothing can be done about a closed standard error.
            drop(writeln!(std::io::stderr(), "{text}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let scenario = match &arguments.scenario {
        None => Scenario::default(),
        Some(path) => {
            let text =
                fs::read(path).map_err(|error| format!("read {}: {error}", path.display()))?;
            serde_json::from_slice(&text)
                .map_err(|error| format!("read {}: {error}", path.display()))?
        }
    };
    let config = Config {
        listen: arguments.listen,
        http_port: arguments.http_port,
        https_port: arguments.https_port,
        scenario,
        arm_page_size: arguments.arm_page_size,
        page_range_limit: arguments.page_range_limit,
        operations: OperationPolicy {
            polls_in_progress: arguments.polls,
            ..OperationPolicy::default()
        },
        token_lifetime: Duration::from_secs(arguments.token_lifetime),
        link: Link {
            latency: Duration::from_millis(arguments.latency),
            bandwidth: arguments.bandwidth,
        },
        spool_dir: arguments.spool_dir,
        ..Config::default()
    };
    let emulator = Emulator::start_blocking(&config)?;
    if let Some(path) = &arguments.ca_out {
        fs::write(path, emulator.ca_pem())
            .map_err(|error| format!("write {}: {error}", path.display()))?;
    }
    let addresses =
        serde_json::json!({ "http": emulator.http_url(), "https": emulator.https_url() });
    if let Some(path) = &arguments.ready_file {
        // A reader sees the whole file or none.
        let new = path.with_extension("new");
        fs::write(&new, addresses.to_string())
            .and_then(|()| fs::rename(&new, path))
            .map_err(|error| format!("write {}: {error}", path.display()))?;
    }
    let mut out = std::io::stdout();
    writeln!(
        out,
        "http  {}\nhttps {}",
        emulator.http_url(),
        emulator.https_url()
    )?;
    out.flush()?;
    wait_for_signal()?;
    Ok(())
}

/// Returns at SIGINT or SIGTERM.
fn wait_for_signal() -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}
