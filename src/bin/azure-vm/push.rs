//! `push SAS --from FILE`: one raw image into an upload disk.

use std::fs::File;

use azure_vm_fd::notice::Severity;
use azure_vm_fd::restore::{RawImage, upload_image};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::args::{Parameters, PushArgs};
use crate::failure::{Failure, Status};
use crate::output::{Output, Report, human};
use crate::sas;

/// The JSON document.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Pushed {
    size_bytes: u64,
    /// Bytes that were sent, the footer included.
    written_bytes: u64,
}

pub(crate) async fn run(
    parameters: &Parameters,
    args: PushArgs,
    cancel: CancellationToken,
    output: &mut Output,
) -> Result<Report, Failure> {
    let settings = parameters.transfer_settings(output)?;
    let failed = |error| Failure::local("read image", &args.from, &error);
    let file = File::open(&args.from).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    if size == 0 || !size.is_multiple_of(MIB) {
        return Err(Failure::failed(format!(
            "read image {}: its {size} bytes are not whole MiB, as those of an Azure disk are; enlarge it, for example with truncate",
            args.from.display()
        )));
    }
    let transport = sas::transport(&settings)?;
    let (blob, what) = sas::blob(&transport, sas::resolve(&args.sas)?, &cancel);
    let listed = blob.page_ranges().await?;
    if !listed.written.is_empty() {
        // What is zero in the image is not sent, so what was there would stay.
        return Err(Failure::failed(format!(
            "upload {what}: the disk was written to before; make a new upload disk"
        )));
    }
    let image = RawImage {
        file,
        path: args.from.clone(),
        size,
    };
    output.message(
        Severity::Info,
        format!("uploading what is not zero of {}", human(size)),
    );
    output.begin_progress("image", size);
    let stats = upload_image(blob, &what, image, settings.limits, &cancel, |progress| {
        output.progress(progress.position);
    })
    .await?;
    output.end_progress();
    output.line(format!(
        "pushed {} ({} sent); end the upload with az disk revoke-access",
        human(size),
        human(stats.bytes)
    ));
    Report::new(
        Status::Ok,
        &Pushed {
            size_bytes: size,
            written_bytes: stats.bytes,
        },
    )
}

/// The data part of an upload disk consists of whole MiB ("Upload a VHD to Azure", Azure documentation).
const MIB: u64 = 1 << 20;
