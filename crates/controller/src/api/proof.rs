//! What the boot proof of a task left: its verdict, the picture of the screen, and the text of the serial console.
//!
//! The files lie in the task's result, or in its working folder when the proof failed. Names come from `conversion`, never
//! from a client. Whoever can write into the output folder must not lead the controller elsewhere by it: no link is followed,
//! and only so much is read of a file.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aide::generate::GenContext;
use aide::openapi::{MediaType, Operation};
use aide::operation::OperationOutput;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use conversion::{PROOF_FOLDER, PROOF_RECORD, PROOF_SCREENSHOT, PROOF_SERIAL_LOG, Proof, working_folder};
use rustix::fs::{CWD, Mode, OFlags, openat};

use super::input::At;
use super::routes::{Answer, Routes, about, blocking};
use super::tasks::OneTask;
use super::{Api, Role};
use crate::store::TaskRecord;
use crate::{Error, ErrorKind, Result};

/// A screen of a VM is some hundred kilobytes.
const PICTURE_BYTES_MAX: u64 = 16 << 20;
/// Of a longer text its end is shown: there the guest says why it stopped.
const TEXT_BYTES_MAX: u64 = 2 << 20;
const RECORD_BYTES_MAX: u64 = 1 << 20;

pub(super) fn routes() -> Routes<Arc<Api>> {
    Routes::new()
        .get(
            "/tasks/{id}/proof",
            about(Role::Viewer, "get_proof", "Verdict and evidence of a task's boot proof"),
            proof,
        )
        .get(
            "/tasks/{id}/proof/screenshot",
            about(Role::Viewer, "get_proof_screenshot", "Last picture of the screen in a task's boot proof"),
            screenshot,
        )
        .get(
            "/tasks/{id}/proof/serial-log",
            about(
                Role::Viewer,
                "get_proof_serial_log",
                "Text of the serial console in a task's boot proof, or its end",
            ),
            serial_log,
        )
}

async fn proof(State(api): State<Arc<Api>>, At(at): At<OneTask>) -> Answer<Json<Proof>> {
    blocking(move || {
        let task = api.store.existing_task(&at.id)?;
        let broken =
            |e| Error::with(ErrorKind::Storage, format!("boot proof of task {} cannot be understood", at.id), e);
        if let Some(outcome) = &task.outcome {
            let outcome: serde_json::Value = serde_json::from_str(outcome).map_err(broken)?;
            return serde_json::from_value(outcome["proof"].clone()).map_err(broken);
        }
        let record = read(&folder_of(&task), PROOF_RECORD, RECORD_BYTES_MAX)?;
        serde_json::from_slice(&record).map_err(broken)
    })
    .await
}

async fn screenshot(State(api): State<Arc<Api>>, At(at): At<OneTask>) -> Answer<Picture> {
    let picture = blocking(move || {
        let picture = read(&folder_of(&api.store.existing_task(&at.id)?), PROOF_SCREENSHOT, PICTURE_BYTES_MAX)?;
        match picture.starts_with(b"\x89PNG\r\n\x1a\n") {
            true => Ok(picture),
            false => Err(Error::new(ErrorKind::NotFound, format!("picture of task {}: it is no PNG file", at.id))),
        }
    });
    Ok(Picture(picture.await?.0))
}

async fn serial_log(State(api): State<Arc<Api>>, At(at): At<OneTask>) -> Answer<Text> {
    let text = blocking(move || read(&folder_of(&api.store.existing_task(&at.id)?), PROOF_SERIAL_LOG, TEXT_BYTES_MAX));
    Ok(Text(text.await?.0))
}

/// Where a task has its files: its result when that is whole, else the working folder.
fn folder_of(task: &TaskRecord) -> PathBuf {
    let output = Path::new(&task.output);
    if task.outcome.is_some() { output.join(&task.name) } else { working_folder(output, &task.name) }
}

/// The end of a file of the proof in `folder`, at most `bytes_max` of it.
fn read(folder: &Path, name: &str, bytes_max: u64) -> Result<Vec<u8>> {
    let shown = folder.join(PROOF_FOLDER).join(name);
    let failed = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => {
            Error::with(ErrorKind::NotFound, format!("the task has no {}", shown.display()), e)
        }
        _ => Error::io(format!("{} cannot be read", shown.display()), e),
    };
    let no_link = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    let open = || -> std::io::Result<File> {
        let folder = openat(CWD, folder, no_link | OFlags::DIRECTORY, Mode::empty())?;
        let proof = openat(&folder, PROOF_FOLDER, no_link | OFlags::DIRECTORY, Mode::empty())?;
        // A pipe of that name would hold the reader up.
        Ok(openat(&proof, name, no_link | OFlags::NONBLOCK, Mode::empty())?.into())
    };
    let mut file = open().map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(Error::new(ErrorKind::NotFound, format!("{} is no file", shown.display())));
    }
    file.seek(SeekFrom::Start(metadata.len().saturating_sub(bytes_max))).map_err(failed)?;
    let mut content = Vec::new();
    file.take(bytes_max).read_to_end(&mut content).map_err(failed)?;
    Ok(content)
}

/// Answers that are files, with their type.
macro_rules! files {
    ($($name:ident: $content_type:literal, $about:literal;)*) => {$(
        #[doc = $about]
        pub(super) struct $name(pub(super) Vec<u8>);

        impl IntoResponse for $name {
            fn into_response(self) -> Response {
                let mut response = self.0.into_response();
                let headers = response.headers_mut();
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static($content_type));
                headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
                headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
                // Another try leaves another one.
                headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
                response
            }
        }

        impl OperationOutput for $name {
            type Inner = Vec<u8>;

            fn inferred_responses(
                _: &mut GenContext,
                _: &mut Operation,
            ) -> Vec<(Option<u16>, aide::openapi::Response)> {
                let file = aide::openapi::Response {
                    description: $about.into(),
                    content: [($content_type.to_owned(), MediaType::default())].into_iter().collect(),
                    ..aide::openapi::Response::default()
                };
                vec![(Some(200), file)]
            }
        }
    )*};
}

files! {
    Picture: "image/png", "A picture.";
    Text: "text/plain; charset=utf-8", "A text.";
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn kind(read: Result<Vec<u8>>) -> ErrorKind {
        read.unwrap_err().kind
    }

    #[test]
    fn no_link_leads_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let (vm, secret) = (folder.path().join("vm"), folder.path().join("secret"));
        std::fs::create_dir_all(vm.join(PROOF_FOLDER)).unwrap();
        std::fs::write(&secret, "secret").unwrap();
        assert_eq!(kind(read(&vm, PROOF_SERIAL_LOG, 100)), ErrorKind::NotFound);
        symlink(&secret, vm.join(PROOF_FOLDER).join(PROOF_SERIAL_LOG)).unwrap();
        assert_eq!(kind(read(&vm, PROOF_SERIAL_LOG, 100)), ErrorKind::Io);
        let other = folder.path().join("other");
        std::fs::create_dir(&other).unwrap();
        symlink(vm.join(PROOF_FOLDER), other.join(PROOF_FOLDER)).unwrap();
        assert_eq!(kind(read(&other, PROOF_SCREENSHOT, 100)), ErrorKind::Io);
        symlink(&vm, folder.path().join("link")).unwrap();
        assert_eq!(kind(read(&folder.path().join("link"), PROOF_SCREENSHOT, 100)), ErrorKind::Io);
    }

    #[test]
    fn of_a_long_file_the_end_is_read_and_what_is_no_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let proof = folder.path().join(PROOF_FOLDER);
        std::fs::create_dir(&proof).unwrap();
        std::fs::write(proof.join(PROOF_SERIAL_LOG), "booting... login:").unwrap();
        assert_eq!(read(folder.path(), PROOF_SERIAL_LOG, 6).unwrap(), b"login:");
        std::fs::create_dir(proof.join(PROOF_SCREENSHOT)).unwrap();
        assert_eq!(kind(read(folder.path(), PROOF_SCREENSHOT, 6)), ErrorKind::NotFound);
    }
}
