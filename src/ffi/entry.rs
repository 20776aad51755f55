//! The functions of our table: one thin body each, all under one guard.

#![allow(non_upper_case_globals, reason = "C names of events stand in patterns")]

use std::any::Any;
use std::ffi::{c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::abi::{
    bEvent, bEventBackupCommand, bEventCancelCommand, bEventEndBackupJob, bEventEndRestoreJob,
    bEventEstimateCommand, bEventJobEnd, bEventJobStart, bEventLevel, bEventPluginCommand,
    bEventRestoreCommand, bEventRestoreObject, bEventSince, bEventStartRestoreJob, bRC, bRC_Error,
    bRC_More, bRC_OK, bRC_Seen, bRC_Stop, bpContext, io_pkt, query_pkt,
};
use super::host::{HostCall, HostTable};
use super::packet::{
    IoPacket, Lent, QueryPacket, RestorePacket, SavePacket, c_str, lossy, restore_object,
};
use super::panic_point;
use crate::plugin::PluginContext;
use crate::plugin::host::{Event, Host as _, IoFailed, MessageClass, Status};

/// What `pContext` points to: our memory, from `newPlugin` to `freePlugin`.
///
/// Only shared references are made from the pointer: the cancel event comes on another thread while the job's own
/// thread may be in any other call.
struct Context {
    plugin: PluginContext,
    /// A call panicked: the job has failed, later calls fail fast.
    broken: AtomicBool,
    /// Locked by the job's thread only.
    lent: Mutex<Lent>,
}

impl Context {
    fn lent(&self) -> MutexGuard<'_, Lent> {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a guarded call works with.
struct Call<'a> {
    context: &'a Context,
    host: HostCall,
    table: &'static HostTable,
}

impl<'a> Call<'a> {
    /// `None` without a host or context, and after a panic.
    ///
    /// # Safety
    ///
    /// `ctx` is null or the host's live context on the thread of the present call, which the result does not outlive;
    /// its `pContext` is null or what `newPlugin` stored.
    unsafe fn new(ctx: *mut bpContext) -> Option<Self> {
        let table = HostTable::get()?;
        if ctx.is_null() {
            return None;
        }
        // SAFETY: not null; the host's live context.
        let context = unsafe { (*ctx).pContext }.cast::<Context>();
        if context.is_null() {
            return None;
        }
        // SAFETY: not null, so made by `newPlugin` and not freed yet; only shared references are made.
        let context: &'a Context = unsafe { &*context };
        if context.broken.load(Ordering::Acquire) {
            return None;
        }
        // SAFETY: the live context of this call.
        let host = unsafe { HostCall::new(table, ctx) };
        Some(Self {
            context,
            host,
            table,
        })
    }

    /// The host passed something that does not belong to the interface it speaks: the job cannot go on.
    fn reject(&self, what: &str) -> bRC {
        self.host.message(
            MessageClass::Fatal,
            &format!(
                "azure-vm: the File Daemon passed {what} that does not fit plugin interface {}; the job cannot go on\n",
                self.table.interface.version
            ),
        );
        bRC_Error
    }
}

/// Runs `body` so that nothing unwinds into the host. After a panic the job fails with one message, `failed` is
/// returned, and so it is from every later call.
fn guard(
    entry: &str,
    call: Option<Call<'_>>,
    failed: bRC,
    body: impl FnOnce(&mut Call<'_>) -> bRC,
) -> bRC {
    let Some(mut call) = call else {
        return failed;
    };
    let guarded = || {
        panic_point::reached(entry, &call.host);
        body(&mut call)
    };
    match catch_unwind(AssertUnwindSafe(guarded)) {
        Ok(code) => code,
        Err(payload) => {
            call.context.broken.store(true, Ordering::Release);
            report_panic(&call.host, payload);
            failed
        }
    }
}

/// Fails the job with the one message of a panic.
fn report_panic(host: &HostCall, payload: Box<dyn Any + Send>) {
    let text = format!(
        "azure-vm: internal error, please report it: {}\n",
        panic_text(payload.as_ref())
    );
    // Dropping a payload may panic again.
    std::mem::forget(payload);
    host.message(MessageClass::Fatal, &text);
}

fn panic_text(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "panic without a text"
    }
}

fn code(status: Status) -> bRC {
    match status {
        Status::Ok => bRC_OK,
        Status::More => bRC_More,
        Status::Stop => bRC_Stop,
        Status::Error => bRC_Error,
        Status::Seen => bRC_Seen,
    }
}

/// `newPlugin`: an empty context for every job of the client, used or not.
///
/// # Safety
///
/// Called by the host with its live context.
pub(super) unsafe extern "C" fn new_plugin(ctx: *mut bpContext) -> bRC {
    if ctx.is_null() {
        return bRC_Error;
    }
    // SAFETY: the host's live context, on the thread of this call.
    let host = HostTable::get().map(|table| unsafe { HostCall::new(table, ctx) });
    let made = catch_unwind(AssertUnwindSafe(|| {
        if let Some(host) = &host {
            panic_point::reached("newPlugin", host);
        }
        Box::new(Context {
            plugin: PluginContext::default(),
            broken: AtomicBool::new(false),
            lent: Mutex::default(),
        })
    }));
    let context = match made {
        Ok(context) => context,
        Err(payload) => {
            // The return code alone means that nothing is saved, and that the job ends well (9.6).
            if let Some(host) = &host {
                report_panic(host, payload);
            }
            return bRC_Error;
        }
    };
    // SAFETY: not null; `pContext` is ours.
    unsafe { (*ctx).pContext = Box::into_raw(context).cast() };
    bRC_OK
}

/// `freePlugin`: ends whatever the job still holds, then the context.
///
/// # Safety
///
/// Called by the host with its live context, once, when no other call is running or will follow.
pub(super) unsafe extern "C" fn free_plugin(ctx: *mut bpContext) -> bRC {
    if ctx.is_null() {
        return bRC_Error;
    }
    // SAFETY: not null; the host's live context.
    let context = unsafe { (*ctx).pContext }.cast::<Context>();
    if context.is_null() {
        return bRC_OK;
    }
    // SAFETY: not null; `pContext` is ours.
    unsafe { (*ctx).pContext = std::ptr::null_mut() };
    // SAFETY: made by `Box::into_raw` in `new_plugin`, and taken out of the host's context just now.
    let context = unsafe { Box::from_raw(context) };
    // SAFETY: the host's live context, on the thread of this call.
    let host = HostTable::get().map(|table| unsafe { HostCall::new(table, ctx) });
    // No message can be sent any more.
    let closed = catch_unwind(AssertUnwindSafe(|| {
        if let Some(host) = &host {
            panic_point::reached("freePlugin", host);
        }
        context.plugin.close();
    }));
    match closed {
        Ok(()) => bRC_OK,
        Err(payload) => {
            std::mem::forget(payload);
            bRC_Error
        }
    }
}

/// `getPluginValue`, `setPluginValue`: there is nothing to get or set.
pub(super) extern "C" fn plugin_value(
    _ctx: *mut bpContext,
    _variable: c_int,
    _value: *mut c_void,
) -> bRC {
    bRC_OK
}

/// `handlePluginEvent`.
///
/// # Safety
///
/// Called by the host with its live context, an event, and the value that belongs to it; all stay valid for the call.
pub(super) unsafe extern "C" fn handle_plugin_event(
    ctx: *mut bpContext,
    event: *mut bEvent,
    value: *mut c_void,
) -> bRC {
    if event.is_null() {
        return bRC_Error;
    }
    // SAFETY: not null; the host's event.
    let kind = unsafe { (*event).eventType };
    // To any other answer than OK to this command, the host would write the files to its own disk.
    let failed = if kind == bEventRestoreCommand {
        bRC_OK
    } else {
        bRC_Error
    };
    // SAFETY: the contract above.
    let call = unsafe { Call::new(ctx) };
    if kind == bEventCancelCommand {
        // Perhaps on another thread: no message, no lock, no call into the host.
        let cancel = AssertUnwindSafe(|| call.map(|call| call.context.plugin.cancel()));
        return match catch_unwind(cancel) {
            Ok(Some(())) => bRC_OK,
            Ok(None) | Err(_) => failed,
        };
    }
    guard("handlePluginEvent", call, failed, |call| {
        // SAFETY: the contract above.
        match unsafe { decode(kind, value) } {
            Ok(event) => code(call.context.plugin.event(&call.host, event)),
            Err(what) => {
                call.reject(what);
                failed
            }
        }
    })
}

/// The event and what its value says.
///
/// # Safety
///
/// `value` is what the host passes with events of this kind.
unsafe fn decode<'a>(kind: u32, value: *mut c_void) -> Result<Event<'a>, &'static str> {
    // SAFETY: used below for events whose value is null or a C string that lives for the call.
    let text = || match unsafe { c_str(value.cast::<c_char>()) } {
        Some(text) => text.to_str().ok().ok_or("a command that is not UTF-8"),
        None => Err("an event without its command"),
    };
    Ok(match kind {
        bEventJobStart => Event::JobStart,
        bEventJobEnd => Event::JobEnd,
        bEventEndBackupJob => Event::EndBackupJob,
        bEventStartRestoreJob => Event::StartRestoreJob,
        bEventEndRestoreJob => Event::EndRestoreJob,
        bEventBackupCommand => Event::BackupCommand(text()?.into()),
        bEventRestoreCommand => Event::RestoreCommand(text()?.into()),
        bEventEstimateCommand => Event::EstimateCommand(text()?.into()),
        bEventPluginCommand => Event::PluginCommand(text()?.into()),
        // A number in place of the pointer.
        bEventLevel => Event::Level(u8::try_from(value.addr()).map_or('?', char::from)),
        bEventSince => Event::Other(kind),
        bEventRestoreObject => {
            // SAFETY: the value of this event is null or such a packet.
            Event::RestoreObject(unsafe { restore_object(value) }.map_err(|()| "a restore object")?)
        }
        _ => Event::Other(kind),
    })
}

/// `startBackupFile`: describes the next file, or says that there is none.
///
/// # Safety
///
/// Called by the host with its live context and packet; both stay valid for the call.
pub(super) unsafe extern "C" fn start_backup_file(ctx: *mut bpContext, save: *mut c_void) -> bRC {
    // SAFETY: the contract above.
    let call = unsafe { Call::new(ctx) };
    guard("startBackupFile", call, bRC_Error, |call| {
        // SAFETY: the contract above.
        let packet = unsafe { SavePacket::new(save, call.table.interface) };
        let Some(mut packet) = packet else {
            return call.reject("a save packet");
        };
        match call.context.plugin.start_backup_file(&call.host) {
            Ok(file) => match packet.fill(file, &mut call.context.lent()) {
                Some(()) => bRC_OK,
                None => call.reject("a save packet with no room for a file"),
            },
            Err(status) => code(status),
        }
    })
}

/// `endBackupFile`: says whether another file follows.
///
/// # Safety
///
/// Called by the host with its live context.
pub(super) unsafe extern "C" fn end_backup_file(ctx: *mut bpContext) -> bRC {
    // SAFETY: the contract above.
    let call = unsafe { Call::new(ctx) };
    guard("endBackupFile", call, bRC_Error, |call| {
        code(call.context.plugin.end_backup_file(&call.host))
    })
}

/// `startRestoreFile`: anything but OK would make the host write the file to its own disk, so the file is rejected in
/// `createFile` if it has to be.
///
/// # Safety
///
/// Called by the host with its live context.
pub(super) unsafe extern "C" fn start_restore_file(
    _ctx: *mut bpContext,
    _command: *const c_char,
) -> bRC {
    bRC_OK
}

/// `endRestoreFile`: the file ended with its close.
///
/// # Safety
///
/// Called by the host with its live context.
pub(super) unsafe extern "C" fn end_restore_file(_ctx: *mut bpContext) -> bRC {
    bRC_OK
}

/// `pluginIO`: open, read, write, seek or close the current file.
///
/// # Safety
///
/// Called by the host with its live context and packet; both stay valid for the call.
pub(super) unsafe extern "C" fn plugin_io(ctx: *mut bpContext, io: *mut io_pkt) -> bRC {
    // SAFETY: the contract above.
    let call = unsafe { Call::new(ctx) };
    // SAFETY: as above.
    let packet = unsafe { IoPacket::new(io) };
    let Some(mut packet) = packet else {
        return guard("pluginIO", call, bRC_Error, |call| {
            call.reject("an I/O packet")
        });
    };
    // Whatever happens from here on, a panic included, leaves a failed packet.
    packet.fail(libc::EIO);
    let code = guard("pluginIO", call, bRC_Error, |call| {
        let Some(io) = packet.io() else {
            return call.reject("an I/O request");
        };
        match call.context.plugin.io(&call.host, io) {
            Ok(done) => match packet.done(done) {
                Some(()) => bRC_OK,
                None => call.reject("an I/O packet with no room for an answer"),
            },
            Err(IoFailed(errno)) => {
                packet.fail(errno);
                bRC_Error
            }
        }
    });
    if code != bRC_OK {
        packet.fail_seek();
    }
    code
}

/// `createFile`: says whether the data of a file is wanted.
///
/// # Safety
///
/// Called by the host with its live context and packet; both stay valid for the call.
pub(super) unsafe extern "C" fn create_file(ctx: *mut bpContext, restore: *mut c_void) -> bRC {
    // SAFETY: the contract above.
    let call = unsafe { Call::new(ctx) };
    guard("createFile", call, bRC_Error, |call| {
        // SAFETY: the contract above.
        let packet = unsafe { RestorePacket::new(restore, call.table.interface) };
        let Some(mut packet) = packet else {
            return call.reject("a restore packet");
        };
        packet.set_status(None);
        let status = call.context.plugin.create_file(&call.host, &packet.file());
        packet.set_status(Some(status));
        bRC_OK
    })
}

/// `setFileAttributes`: a VM has none; the host calls this before it closes the file.
///
/// # Safety
///
/// Called by the host with its live context and packet.
pub(super) unsafe extern "C" fn set_file_attributes(
    _ctx: *mut bpContext,
    _restore: *mut c_void,
) -> bRC {
    bRC_OK
}

/// `checkFile`: whether a file of an earlier job still exists (Accurate mode).
///
/// # Safety
///
/// Called by the host with its live context and a C string.
pub(super) unsafe extern "C" fn check_file(ctx: *mut bpContext, name: *const c_char) -> bRC {
    // SAFETY: the contract above.
    let call = unsafe { Call::new(ctx) };
    guard("checkFile", call, bRC_OK, |call| {
        // SAFETY: the contract above.
        let name = unsafe { lossy(name) };
        code(call.context.plugin.check_file(&name))
    })
}

/// `queryParameter`: answers a console's question.
///
/// # Safety
///
/// Called by the host with its live context and packet; both stay valid for the call.
pub(super) unsafe extern "C" fn query_parameter(ctx: *mut bpContext, query: *mut query_pkt) -> bRC {
    // SAFETY: the contract above.
    let call = unsafe { Call::new(ctx) };
    guard("queryParameter", call, bRC_Error, |call| {
        // SAFETY: the contract above.
        let packet = unsafe { QueryPacket::new(query) };
        let Some(mut packet) = packet else {
            return call.reject("a query packet");
        };
        let answer = call
            .context
            .plugin
            .query(&call.host, &packet.parameter(), &packet.command());
        packet.answer(&answer, &mut call.context.lent());
        bRC_OK
    })
}

#[cfg(test)]
mod tests {
    use std::ptr::null_mut;

    use super::*;

    /// As after a panic: there is no context to ask.
    #[test]
    fn a_restore_command_is_never_refused() {
        let answer = |kind| {
            let mut event = bEvent { eventType: kind };
            // SAFETY: without a context nothing else is touched.
            unsafe { handle_plugin_event(null_mut(), &raw mut event, null_mut()) }
        };
        assert_eq!(answer(bEventRestoreCommand), bRC_OK);
        assert_eq!(answer(bEventBackupCommand), bRC_Error);
    }
}
