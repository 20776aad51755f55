//! Views of the host's packets: checked when made, safe to use then.
//!
//! A view exists only for a packet that is not null, is aligned, and carries its version's size at both ends. What a
//! view lends lives as long as the call that it was made in.

use std::borrow::Cow;
use std::ffi::{CStr, CString, c_char, c_void};
use std::marker::PhantomData;
use std::mem::size_of;
use std::time::{SystemTime, UNIX_EPOCH};

use super::abi::{
    CF_ERROR, CF_EXTRACT, CF_SKIP, FO_OFFSETS, FT_PLUGIN_CONFIG, FT_PLUGIN_CONFIG_FILLED, FT_REG,
    IO_CLOSE, IO_OPEN, IO_READ, IO_SEEK, IO_WRITE, io_pkt, query_pkt, restore_object_pkt,
};
use super::interface::{Interface, RestoreLayout, SaveLayout};
use crate::plugin::host::{
    CreateStatus, DataStream, Io, IoDone, RestoreFile, RestoreObject, SaveFile,
};

/// A packet whose layout is only known as offsets.
struct RawPacket<'a> {
    base: *mut u8,
    size: usize,
    _lent: PhantomData<&'a mut u8>,
}

impl RawPacket<'_> {
    /// `None` if it is not a packet of `size` bytes.
    ///
    /// # Safety
    ///
    /// A packet that is not null begins with its size, and is as long as it says.
    unsafe fn new(packet: *mut c_void, size: usize, end: usize) -> Option<Self> {
        let base = packet.cast::<u8>();
        if base.is_null() || !base.cast::<u64>().is_aligned() {
            return None;
        }
        // SAFETY: not null, aligned; every packet begins with its size.
        let mark = unsafe { base.cast::<i32>().read() };
        if usize::try_from(mark) != Ok(size) {
            return None;
        }
        let packet = Self {
            base,
            size,
            _lent: PhantomData,
        };
        (packet.get::<i32>(end) == mark).then_some(packet)
    }

    /// The member at `offset`. `T` is a plain C type of which every bit pattern is valid.
    fn get<T: Plain>(&self, offset: usize) -> T {
        self.check::<T>(offset);
        // SAFETY: `check` keeps the offset inside the packet.
        let member = unsafe { self.base.add(offset) };
        // SAFETY: inside the packet, aligned, and plain.
        unsafe { member.cast::<T>().read() }
    }

    /// Writes the member at `offset`.
    fn set<T: Plain>(&mut self, offset: usize, value: T) {
        self.check::<T>(offset);
        // SAFETY: `check` keeps the offset inside the packet.
        let member = unsafe { self.base.add(offset) };
        // SAFETY: inside the packet, aligned, and lent to us alone for the call.
        unsafe { member.cast::<T>().write(value) };
    }

    /// The offsets come from compiled structs, so this cannot fail; a mistake shall be a panic and nothing worse.
    fn check<T>(&self, offset: usize) {
        assert!(offset + size_of::<T>() <= self.size && offset.is_multiple_of(align_of::<T>()));
    }
}

/// C types of which every bit pattern is valid.
trait Plain {}
impl Plain for u8 {}
impl Plain for i32 {}
impl Plain for u64 {}
impl Plain for *const c_char {}
impl Plain for libc::stat {}

/// The host's C string; `None` if it is null.
///
/// # Safety
///
/// Null, or a C string that lives for `'a`.
pub(super) unsafe fn c_str<'a>(text: *const c_char) -> Option<&'a CStr> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not null; the caller's promise.
    Some(unsafe { CStr::from_ptr(text) })
}

/// As [`c_str`], what is not UTF-8 replaced; null is empty.
///
/// # Safety
///
/// Null, or a C string that lives for `'a`.
pub(super) unsafe fn lossy<'a>(text: *const c_char) -> Cow<'a, str> {
    // SAFETY: the caller's promise.
    match unsafe { c_str(text) } {
        Some(text) => text.to_string_lossy(),
        None => Cow::Borrowed(""),
    }
}

/// What the host may read until the entry ends, or until the next answer: our memory.
#[derive(Debug, Default)]
pub(super) struct Lent {
    name: CString,
    object_name: CString,
    object: CString,
    answer: CString,
}

/// `save_pkt`: filled by us.
pub(super) struct SavePacket<'a> {
    raw: RawPacket<'a>,
    layout: &'static SaveLayout,
}

impl SavePacket<'_> {
    /// `None` if it is not such a packet.
    ///
    /// # Safety
    ///
    /// Null, or a packet of the host's, lent for the call.
    pub(super) unsafe fn new(packet: *mut c_void, interface: &'static Interface) -> Option<Self> {
        let layout = &interface.save;
        // SAFETY: the caller's promise.
        let raw = unsafe { RawPacket::new(packet, layout.size, layout.pkt_end) }?;
        Some(Self { raw, layout })
    }

    /// Describes the next file; `lent` keeps its texts. `None` if it has no place in a packet (a name with a NUL, an
    /// object or size out of range).
    pub(super) fn fill(&mut self, file: SaveFile, lent: &mut Lent) -> Option<()> {
        let layout = self.layout;
        match file {
            SaveFile::File {
                path,
                size,
                modified,
                offsets,
            } => {
                lent.name = CString::new(path).ok()?;
                self.raw.set(layout.statp, stat(size, modified)?);
                self.raw.set(layout.type_, FT_REG);
                self.raw.set(layout.portable, 1_u8);
                let flags: u64 = self.raw.get(layout.flags);
                let offsets = if offsets { FO_OFFSETS } else { 0 };
                self.raw.set(layout.flags, flags & !FO_OFFSETS | offsets);
            }
            SaveFile::Options { name, template } => {
                lent.name = CString::new(name).ok()?;
                lent.object_name = lent.name.clone();
                lent.object = CString::new(template).ok()?;
                let len = i32::try_from(lent.object.as_bytes().len()).ok()?;
                self.raw.set(layout.statp, stat(0, SystemTime::now())?);
                self.raw.set(layout.type_, FT_PLUGIN_CONFIG);
                self.raw.set(layout.object_name, lent.object_name.as_ptr());
                self.raw.set(layout.object, lent.object.as_ptr());
                self.raw.set(layout.object_len, len);
                self.raw.set(layout.index, 1);
            }
        }
        // A name is wanted for objects, too; without link the host takes none.
        self.raw.set(layout.fname, lent.name.as_ptr());
        self.raw.set(layout.link, std::ptr::null());
        Some(())
    }
}

/// A regular file of its owner alone; `None` if size or time are out of range.
fn stat(size: u64, modified: SystemTime) -> Option<libc::stat> {
    const BLOCK: i64 = 4096;
    let seconds = modified.duration_since(UNIX_EPOCH).ok()?.as_secs();
    let seconds = i64::try_from(seconds).ok()?;
    // SAFETY: a plain C struct of numbers, for which zeros are valid.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    stat.st_mode = libc::S_IFREG | 0o600;
    stat.st_nlink = 1;
    stat.st_size = i64::try_from(size).ok()?;
    stat.st_blksize = BLOCK;
    stat.st_blocks = i64::try_from(size.div_ceil(512)).ok()?;
    stat.st_atime = seconds;
    stat.st_mtime = seconds;
    stat.st_ctime = seconds;
    Some(stat)
}

/// `restore_pkt`: a file that comes back.
pub(super) struct RestorePacket<'a> {
    raw: RawPacket<'a>,
    interface: &'static Interface,
}

impl RestorePacket<'_> {
    /// `None` if it is not such a packet.
    ///
    /// # Safety
    ///
    /// Null, or a packet of the host's, lent for the call.
    pub(super) unsafe fn new(packet: *mut c_void, interface: &'static Interface) -> Option<Self> {
        let layout = &interface.restore;
        // SAFETY: the caller's promise.
        let raw = unsafe { RawPacket::new(packet, layout.size, layout.pkt_end) }?;
        Some(Self { raw, interface })
    }

    fn layout(&self) -> &'static RestoreLayout {
        &self.interface.restore
    }

    /// The file.
    pub(super) fn file(&self) -> RestoreFile<'_> {
        let stat: libc::stat = self.raw.get(self.layout().statp);
        RestoreFile {
            // SAFETY: the host's C string, which lives for the call.
            path: unsafe { lossy(self.raw.get(self.layout().ofname)) },
            size: u64::try_from(stat.st_size).unwrap_or(0),
            data: data_stream(
                self.interface.version,
                self.raw.get(self.layout().data_stream),
            ),
        }
    }

    /// The answer; an error until something else is said.
    pub(super) fn set_status(&mut self, status: Option<CreateStatus>) {
        let status = match status {
            Some(CreateStatus::Extract) => CF_EXTRACT,
            Some(CreateStatus::Skip) => CF_SKIP,
            None => CF_ERROR,
        };
        self.raw.set(self.layout().create_status, status);
    }
}

/// Streams of interface 14 say for certain whether blocks carry offsets: sparse plain, GZIP and LZO do, no other does.
/// Later versions have further ways to store an offset.
fn data_stream(version: u32, stream: i32) -> DataStream {
    match (version, stream) {
        (_, 6 | 7 | 30) => DataStream::Offsets,
        (14, _) => DataStream::Plain,
        _ => DataStream::Other(stream),
    }
}

/// `io_pkt`: one step of reading or writing. Failed until [`IoPacket::done`] says otherwise.
pub(super) struct IoPacket<'a> {
    packet: &'a mut io_pkt,
}

impl<'a> IoPacket<'a> {
    /// `None` if it is not such a packet.
    ///
    /// # Safety
    ///
    /// Null, or a packet of the host's, lent for the call together with the buffer in it.
    pub(super) unsafe fn new(packet: *mut io_pkt) -> Option<Self> {
        const SIZE: usize = size_of::<io_pkt>();
        let end = std::mem::offset_of!(io_pkt, pkt_end);
        // SAFETY: the caller's promise.
        unsafe { RawPacket::new(packet.cast(), SIZE, end) }?;
        // SAFETY: not null, aligned, of the right size; numbers and pointers only; lent to us alone for the call.
        let packet = unsafe { &mut *packet };
        Some(Self { packet })
    }

    /// The step; `None` if the packet asks for something that does not exist.
    pub(super) fn io(&mut self) -> Option<Io<'a>> {
        let count = usize::try_from(self.packet.count);
        match self.packet.func {
            IO_OPEN => Some(Io::Open),
            IO_CLOSE => Some(Io::Close),
            IO_SEEK if self.packet.whence == libc::SEEK_SET => {
                u64::try_from(self.packet.offset).ok().map(Io::Seek)
            }
            IO_READ if count != Ok(0) && !self.packet.buf.is_null() => {
                // SAFETY: the host's buffer of `count` bytes, lent to us alone for the call; the host has written to
                // it before or got it from its allocator, so any byte is a value.
                let buffer =
                    unsafe { std::slice::from_raw_parts_mut(self.packet.buf, count.ok()?) };
                Some(Io::Read(buffer))
            }
            IO_WRITE if !self.packet.buf.is_null() => {
                // SAFETY: the host's buffer of `count` bytes, lent for the call.
                let data = unsafe { std::slice::from_raw_parts(self.packet.buf, count.ok()?) };
                Some(Io::Write(data))
            }
            _ => None,
        }
    }

    /// Answers a good step. `io_errno` is set, too: the host copies it unseen. `None` if the answer has no place.
    pub(super) fn done(&mut self, done: IoDone) -> Option<()> {
        let status = match done {
            IoDone::Done => 0,
            IoDone::Written(len) => i32::try_from(len).ok()?,
            IoDone::Read { len, offset } => {
                self.packet.offset = i64::try_from(offset).ok()?;
                i32::try_from(len).ok()?
            }
        };
        self.packet.status = status;
        self.packet.io_errno = 0;
        self.packet.lerror = 0;
        Some(())
    }

    /// Answers a failed step.
    pub(super) fn fail(&mut self, errno: i32) {
        self.packet.status = -1;
        self.packet.io_errno = errno;
        self.packet.lerror = 0;
    }

    /// Of a failed seek the host looks at the offset alone.
    pub(super) fn fail_seek(&mut self) {
        if self.packet.func == IO_SEEK {
            self.packet.offset = -1;
        }
    }
}

/// The object behind an event's value; `Err` if it is not such a packet, `Ok(None)` after the last object.
///
/// # Safety
///
/// Null, or a packet of the host's, lent for the call.
pub(super) unsafe fn restore_object<'a>(
    packet: *mut c_void,
) -> Result<Option<RestoreObject<'a>>, ()> {
    if packet.is_null() {
        return Ok(None);
    }
    let end = std::mem::offset_of!(restore_object_pkt, pkt_end);
    // SAFETY: the caller's promise.
    unsafe { RawPacket::new(packet, size_of::<restore_object_pkt>(), end) }.ok_or(())?;
    // SAFETY: not null, aligned, of the right size; numbers and pointers only.
    let packet = unsafe { &*packet.cast::<restore_object_pkt>() };
    let len = usize::try_from(packet.object_len).map_err(drop)?;
    // An object that was lost on its way arrives empty or null, with the length that it should have.
    // SAFETY: the host's text, which it ends with a NUL; lives for the call.
    let content = unsafe { lossy(packet.object.cast()) };
    Ok(Some(RestoreObject {
        is_filled_options: packet.object_type == FT_PLUGIN_CONFIG_FILLED,
        // SAFETY: the host's C string, which lives for the call.
        name: unsafe { lossy(packet.object_name) },
        // SAFETY: as above.
        command: unsafe { lossy(packet.plugin_name) }.into(),
        content,
        len,
    }))
}

/// `query_pkt`: a question of a console.
pub(super) struct QueryPacket<'a> {
    packet: &'a mut query_pkt,
}

impl<'a> QueryPacket<'a> {
    /// `None` if it is not such a packet.
    ///
    /// # Safety
    ///
    /// Null, or a packet of the host's, lent for the call.
    pub(super) unsafe fn new(packet: *mut query_pkt) -> Option<Self> {
        let end = std::mem::offset_of!(query_pkt, pkt_end);
        // SAFETY: the caller's promise.
        unsafe { RawPacket::new(packet.cast(), size_of::<query_pkt>(), end) }?;
        // SAFETY: not null, aligned, of the right size; numbers and pointers only; lent to us alone for the call.
        let packet = unsafe { &mut *packet };
        Some(Self { packet })
    }

    /// What is asked.
    pub(super) fn parameter(&self) -> Cow<'a, str> {
        // SAFETY: the host's C string, which lives for the call.
        unsafe { lossy(self.packet.parameter) }
    }

    /// `azure-vm:` and parameters.
    pub(super) fn command(&self) -> Cow<'a, str> {
        // SAFETY: the host's C string, which lives for the call.
        unsafe { lossy(self.packet.command) }
    }

    /// The answer; `lent` keeps it.
    pub(super) fn answer(&mut self, text: &str, lent: &mut Lent) {
        lent.answer = CString::new(text.replace('\0', " ")).unwrap_or_default();
        self.packet.result = lent.answer.as_ptr();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_with_wrong_marks_are_refused() {
        let interface = Interface::of_version(14).expect("known");
        let mut packet = [0_u64; 30];
        let mark = |packet: &mut [u64; 30], at: usize, value: i32| {
            let shift = if at.is_multiple_of(8) { 0 } else { 32 };
            let bits = u64::from(value.unsigned_abs());
            packet[at / 8] = packet[at / 8] & !(0xffff_ffff << shift) | bits << shift;
        };
        let mut is_accepted = |size, end| {
            mark(&mut packet, 0, size);
            mark(&mut packet, 236, end);
            // SAFETY: longer than any size that is accepted.
            unsafe { SavePacket::new(packet.as_mut_ptr().cast(), interface) }.is_some()
        };
        assert!(is_accepted(240, 240));
        assert!(!is_accepted(240, 0));
        assert!(!is_accepted(256, 256));
        assert!(!is_accepted(0, 240));
        // SAFETY: null is allowed.
        assert!(unsafe { SavePacket::new(std::ptr::null_mut(), interface) }.is_none());
    }

    #[test]
    fn streams_of_interface_14_are_certain() {
        assert_eq!(data_stream(14, 7), DataStream::Offsets);
        assert_eq!(data_stream(14, 29), DataStream::Plain);
        assert_eq!(data_stream(23, 29), DataStream::Other(29));
    }
}
