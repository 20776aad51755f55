//! What Azure CLI sends: accepted or refused as it should be.
use crate::{
    common::{Azure, disk_id},
    recording::exchanges,
};
use mock_server::{Config, Disk, GIB, Scenario};

const GROUP: &str = "RG1";

#[tokio::test]
async fn what_azure_cli_sends_is_accepted_or_refused_as_not_modelled() {
    let disk = Disk {
        location: Some("westus".into()),
        ..Disk::new("d1", GIB).in_group(GROUP)
    };
    let config = Config {
        scenario: Scenario::new().resource_group(GROUP, "westus").disk(disk),
        ..Config::default()
    };
    let azure = Azure::start(config).await;
    let sent = exchanges("az-cli-bodies");
    let [upload, secure, snapshot, grant, revoke] = sent.as_slice() else {
        panic!("{sent:?}")
    };
    let url = |target: &str| format!("{}{target}", azure.emulator.http_url());
    let body = |text: &str| (!text.is_empty()).then(|| serde_json::from_str(text).unwrap());

    // An upload disk with all that `az disk create` gives it.
    let status = azure
        .finish(upload.method(), &url(upload.target()), body(&upload.sent))
        .await;
    let disk = &Azure::succeeded(&status)["properties"]["output"];
    assert_eq!(disk["properties"]["diskState"], "ReadyToUpload");
    assert_eq!(disk["zones"], upload.sent_json()["zones"]);
    assert_eq!(disk["tags"], upload.sent_json()["tags"]);
    for name in [
        "hyperVGeneration",
        "osType",
        "supportedCapabilities",
        "creationData",
    ] {
        assert_eq!(
            disk["properties"][name],
            upload.sent_json()["properties"][name],
            "{name}"
        );
    }

    // Guest state and instant access are not modelled: said, not ignored.
    for (refused, what) in [
        (secure, "disk with createOption UploadPreparedSecure"),
        (snapshot, "instantAccessDurationMinutes"),
    ] {
        let answer = azure
            .arm(
                refused.method(),
                &url(refused.target()),
                body(&refused.sent),
            )
            .await
            .expect(501);
        assert!(answer.text().contains(what), "{}", answer.text());
    }
    assert_eq!(azure.emulator.unmodelled().len(), 2);

    // The same without instant access.
    let mut plain = snapshot.sent_json();
    let creation = plain["properties"]["creationData"].as_object_mut().unwrap();
    creation.remove("instantAccessDurationMinutes");
    let status = azure
        .finish(snapshot.method(), &url(snapshot.target()), Some(plain))
        .await;
    let made = &Azure::succeeded(&status)["properties"]["output"];
    assert_eq!(made["sku"]["name"], "Standard_ZRS");
    assert_eq!(
        made["properties"]["creationData"]["sourceResourceId"],
        disk_id(GROUP, "d1")
    );

    let status = azure
        .finish(grant.method(), &url(grant.target()), body(&grant.sent))
        .await;
    let sas = &Azure::succeeded(&status)["properties"]["output"]["accessSAS"];
    assert!(sas.as_str().unwrap().contains("&sig="), "{sas}");
    // `az disk revoke-access` sends no body; nothing is open on that disk, which is no mistake.
    let status = azure
        .finish(revoke.method(), &url(revoke.target()), None)
        .await;
    Azure::succeeded(&status);
    assert_eq!(azure.emulator.state().grants.len(), 1);
}
