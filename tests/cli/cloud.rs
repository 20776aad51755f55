//! An emulator with something in it, the built program, and what an administrator does beside it.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use mock_server::{
    Config, DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, DEFAULT_SUBSCRIPTION, DEFAULT_TENANT, Disk,
    Emulator, KIB, MIB, Scenario, Vm,
};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const UUID: &str = "3d1f0c52-7a44-4e0e-9a53-8b1d6c2f9e10";

/// An emulator with one VM of three disks, and a configuration file for it.
pub(crate) struct Cloud {
    pub(crate) emulator: Emulator,
    folder: TempDir,
}

impl Cloud {
    pub(crate) async fn start() -> Self {
        Self::of(Scenario::new().vm(ledger())).await
    }

    pub(crate) async fn of(scenario: Scenario) -> Self {
        let config = Config {
            scenario,
            ..Config::default()
        };
        let emulator = Emulator::start(config).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let cloud = Self { emulator, folder };
        cloud.configure(DEFAULT_TENANT, DEFAULT_CLIENT_SECRET);
        cloud
    }

    pub(crate) fn configure(&self, tenant: &str, secret: &str) {
        let url = self.emulator.http_url();
        let text = format!(
            "[emulator]\ntenant_id = {tenant}\nsubscription_id = {DEFAULT_SUBSCRIPTION}\napplication_id = {DEFAULT_CLIENT_ID}\napplication_secret = {secret}\narm_endpoint = {url}\nauthority = {url}\nallow_http = yes\n"
        );
        fs::write(self.path("azure-vm.conf"), text).unwrap();
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(self.path("azure-vm.conf"), mode).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_azure-vm"));
        command
            .args(args)
            .arg("--config")
            .arg(self.path("azure-vm.conf"))
            .env_remove("AZURE_VM_APPLICATION_SECRET")
            .env_remove("AZURE_VM_SAS")
            .env_remove("AZURE_VM_BASE_SAS")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Run {
        Run::of(self.command(args).output().unwrap())
    }

    /// With `--json`: the document, checked for being all of standard output.
    pub(crate) fn run_json(&self, args: &[&str]) -> (i32, Value) {
        let mut args = args.to_vec();
        args.push("--json");
        let run = self.run(&args);
        let document: Value = serde_json::from_str(&run.stdout)
            .unwrap_or_else(|error| panic!("{error}: {:?} {:?}", run.stdout, run.stderr));
        assert_eq!(document["command"], args[0]);
        (run.code, document)
    }

    /// Nothing of a run is left in Azure.
    pub(crate) fn assert_clean(&self) {
        let state = self.emulator.state();
        assert!(state.snapshots.is_empty(), "{:?}", state.snapshots);
        assert!(state.grants.is_empty(), "{:?}", state.grants);
        assert!(state.running_operations.is_empty());
        assert_eq!(self.emulator.unmodelled(), Vec::<String>::new());
    }

    pub(crate) fn assert_same_bytes(&self, file: &Path, disk: &str) {
        let size = self.emulator.disk_size(disk).unwrap();
        let expected = self.emulator.disk_read(disk, 0, size).unwrap();
        let actual = fs::read(file).unwrap();
        assert_eq!(actual.len(), expected.len());
        let differs = actual.iter().zip(&expected).position(|(a, b)| a != b);
        assert_eq!(differs, None, "{} and {disk}", file.display());
    }
}

pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn of(output: Output) -> Self {
        let run = Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        };
        for secret in [DEFAULT_CLIENT_SECRET, "sig=", "Bearer ey"] {
            assert!(!run.stdout.contains(secret), "{}", run.stdout);
            assert!(!run.stderr.contains(secret), "{}", run.stderr);
        }
        run
    }
}

pub(crate) fn ledger() -> Vm {
    let os = Disk::new("ledger01-os", 64 * MIB)
        .pattern(1, 0, 3 * MIB)
        .zeros(8 * MIB, MIB)
        .pattern(2, 40 * MIB + 512, 7 * KIB);
    let five = Disk::new("ledger01-five", 32 * MIB).ranges(3, 4 * KIB, 100, 4 * KIB, 64 * KIB);
    let zero = Disk::new("ledger01-zero", 20 * MIB);
    Vm::new("accounts", "ledger01", os)
        .data_disk(5, five)
        .data_disk(0, zero)
        .vm_id(UUID)
}

/// Path of a file below a folder that `backup` filled, by the end of its name.
pub(crate) fn saved(folder: &Path, ending: &str) -> PathBuf {
    let folder = folder.join("@azure-vm").join(UUID);
    let mut found = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(ending));
    let path = found.next().unwrap();
    assert_eq!(found.next(), None);
    path
}

pub(crate) fn is_empty(folder: &Path) -> bool {
    !folder.exists() || fs::read_dir(folder).unwrap().next().is_none()
}

impl Cloud {
    /// Sends SIGINT when the emulator has seen so many requests of an operation.
    pub(crate) fn interrupt(&self, args: &[&str], operation: &str, requests: u64) -> Run {
        let mut child = self
            .command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while self.emulator.counters().requests(operation) < requests {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "no transfer began"
            );
            assert_eq!(
                child.try_wait().unwrap(),
                None,
                "it ended before the signal"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        Run::of(child.wait_with_output().unwrap())
    }

    pub(crate) fn run_with_input(&self, args: &[&str], input: &str) -> Run {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        Run::of(child.wait_with_output().unwrap())
    }

    /// Takes a snapshot as an administrator would, and returns a SAS for it.
    pub(crate) fn snapshot(&self, disk: &str, name: &str) -> String {
        self.take_snapshot(disk, name, &json!({}));
        self.grant(&format!("snapshots/{name}"), "Read")
    }

    pub(crate) fn take_snapshot(&self, disk: &str, name: &str, tags: &Value) {
        let source = self.emulator.state().disk(disk).unwrap().id.clone();
        let body = json!({
            "location": "westeurope",
            "tags": tags,
            "properties": {
                "creationData": { "createOption": "Copy", "sourceResourceId": source },
                "incremental": true,
            },
        });
        self.put(&format!("snapshots/{name}"), &body.to_string());
    }

    pub(crate) fn upload_disk(&self, name: &str, size: u64) -> String {
        let body = json!({
            "location": "westeurope",
            "sku": { "name": "Standard_LRS" },
            "properties": { "creationData": { "createOption": "Upload", "uploadSizeBytes": size + 512 } },
        });
        self.put(&format!("disks/{name}"), &body.to_string());
        self.grant(&format!("disks/{name}"), "Write")
    }

    pub(crate) fn grant(&self, resource: &str, access: &str) -> String {
        let body = json!({ "access": access, "durationInSeconds": 3600 }).to_string();
        let granted = self.post(&format!("{resource}/beginGetAccess"), &body);
        granted["accessSAS"].as_str().unwrap().to_owned()
    }

    fn put(&self, path: &str, body: &str) -> Value {
        self.request("PUT", path, body)
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Value {
        self.request("POST", path, body)
    }

    /// A request of an administrator to the emulator, waited for: the bare minimum of HTTP.
    fn request(&self, method: &str, path: &str, body: &str) -> Value {
        let path = format!(
            "/subscriptions/{DEFAULT_SUBSCRIPTION}/resourceGroups/accounts/providers/Microsoft.Compute/{path}?api-version=2025-01-02"
        );
        let (head, mut answer) = self.exchange(method, &path, "application/json", body);
        let location = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("location")
                .then(|| value.to_owned())
        });
        if let Some(location) = location {
            let path = location
                .trim_start_matches(self.emulator.http_url())
                .to_owned();
            loop {
                let (head, body) = self.exchange("GET", &path, "application/json", "");
                answer = body;
                if !head.starts_with("HTTP/1.1 202") {
                    break;
                }
            }
        }
        serde_json::from_str(&answer).unwrap_or(Value::Null)
    }

    fn exchange(&self, method: &str, path: &str, kind: &str, body: &str) -> (String, String) {
        let token = if path.starts_with("/subscriptions") {
            format!("Authorization: Bearer {}\r\n", self.token())
        } else {
            String::new()
        };
        let host = self.emulator.http_url().trim_start_matches("http://");
        let mut stream = TcpStream::connect(host).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\n{token}Content-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 20"), "{method} {path}: {answer}");
        (head.to_owned(), body.to_owned())
    }

    fn token(&self) -> String {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("client_id", DEFAULT_CLIENT_ID)
            .append_pair("client_secret", DEFAULT_CLIENT_SECRET)
            .append_pair("grant_type", "client_credentials")
            .append_pair(
                "scope",
                &format!("{}/.default", "https://management.azure.com/"),
            );
        let path = format!("/{DEFAULT_TENANT}/oauth2/v2.0/token");
        let kind = "application/x-www-form-urlencoded";
        let (_, body) = self.exchange("POST", &path, kind, &form.finish());
        let answer: Value = serde_json::from_str(&body).unwrap();
        answer["access_token"].as_str().unwrap().to_owned()
    }
}
