//! Fuzz target of the host's packets: any number in any member. Pointers are what the contract makes of them, null or texts and
//! buffers of our own, for what a pointer leads to cannot be checked.

#![allow(clippy::missing_panics_doc, reason = "a panic is the finding")]

use std::ffi::{CString, c_void};
use std::mem::{offset_of, size_of};
use std::ptr::null_mut;
use std::time::{Duration, UNIX_EPOCH};

use super::abi::{
    CF_EXTRACT, FO_OFFSETS, bEvent, bEventRestoreCommand, bRC_Error, bRC_OK, io_pkt, query_pkt,
    restore_object_pkt,
};
use super::entry;
use super::interface::Interface;
use super::packet::{IoPacket, Lent, QueryPacket, RestorePacket, SavePacket, restore_object};
use crate::plugin::host::{CreateStatus, Io, IoDone, SaveFile};

/// Longer than any packet, and aligned as the host's are.
const WORDS: usize = 48;

/// Sixteen bytes of choices, then what packets and texts are made of.
pub fn host_packets(data: &[u8]) {
    let mut choices = [0; 16];
    let len = data.len().min(16);
    choices[..len].copy_from_slice(&data[..len]);
    let rest = &data[len..];
    let versions = [14, 21, 22, 23];
    let interface = Interface::of_version(versions[usize::from(choices[0] % 4)]).expect("known");
    let text = text(rest);
    let text = (choices[1] & 1 == 0).then_some(&text);
    match choices[2] % 5 {
        0 => save(
            Packet::new(
                rest,
                choices[3],
                interface.save.size,
                interface.save.pkt_end,
            ),
            interface,
            choices,
            text,
        ),
        1 => restore(
            Packet::new(
                rest,
                choices[3],
                interface.restore.size,
                interface.restore.pkt_end,
            ),
            interface,
            text,
        ),
        2 => io(
            Packet::new(
                rest,
                choices[3],
                size_of::<io_pkt>(),
                offset_of!(io_pkt, pkt_end),
            ),
            choices,
        ),
        3 => object(
            Packet::new(
                rest,
                choices[3],
                size_of::<restore_object_pkt>(),
                offset_of!(restore_object_pkt, pkt_end),
            ),
            text,
        ),
        _ => query(
            Packet::new(
                rest,
                choices[3],
                size_of::<query_pkt>(),
                offset_of!(query_pkt, pkt_end),
            ),
            text,
        ),
    }
    // Without a context of ours the host's calls end at once.
    let kind = u32::from_le_bytes([choices[4], choices[5], choices[6], choices[7]]);
    let mut event = bEvent { eventType: kind };
    // SAFETY: no context, so nothing else is touched.
    let code = unsafe { entry::handle_plugin_event(null_mut(), &raw mut event, null_mut()) };
    let expected = if kind == bEventRestoreCommand {
        bRC_OK
    } else {
        bRC_Error
    };
    assert_eq!(code, expected);
}

/// As C has it: up to the first NUL.
fn text(data: &[u8]) -> CString {
    let end = data
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(data.len());
    CString::new(&data[..end]).expect("no NUL")
}

/// Memory for a packet.
struct Packet {
    words: [u64; WORDS],
    /// Whether it has the size that belongs to it, at both ends.
    is_marked: bool,
}

impl Packet {
    /// Made of `data`; `marks` says which of its marks are put right.
    fn new(data: &[u8], marks: u8, size: usize, end: usize) -> Self {
        let mut bytes = [0; WORDS * 8];
        for (to, from) in bytes.iter_mut().zip(data) {
            *to = *from;
        }
        let mark = i32::try_from(size).expect("small").to_ne_bytes();
        if marks & 1 == 0 {
            bytes[..4].copy_from_slice(&mark);
        }
        if marks & 2 == 0 {
            bytes[end..end + 4].copy_from_slice(&mark);
        }
        let is_marked = bytes[..4] == mark && bytes[end..end + 4] == mark;
        let (chunks, _) = bytes.as_chunks::<8>();
        let mut words = [0; WORDS];
        for (word, chunk) in words.iter_mut().zip(chunks) {
            *word = u64::from_ne_bytes(*chunk);
        }
        Self { words, is_marked }
    }

    fn pointer(&mut self) -> *mut c_void {
        self.words.as_mut_ptr().cast()
    }

    /// Puts a pointer into the member at `offset`.
    fn put<T>(&mut self, offset: usize, pointer: *const T) {
        assert!(offset.is_multiple_of(8) && offset < WORDS * 8);
        // SAFETY: inside the memory.
        let member = unsafe { self.pointer().byte_add(offset) };
        // SAFETY: inside the memory and aligned.
        unsafe { member.cast::<*const T>().write(pointer) };
    }

    fn int(&self, offset: usize) -> i32 {
        let bytes = self.words[offset / 8].to_ne_bytes();
        let at = offset % 8;
        i32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    }
}

fn pointer_of(text: Option<&CString>) -> *const std::ffi::c_char {
    text.map_or(std::ptr::null(), |text| text.as_ptr())
}

fn save(
    mut packet: Packet,
    interface: &'static Interface,
    choices: [u8; 16],
    text: Option<&CString>,
) {
    let layout = &interface.save;
    let number = u64::from_le_bytes([
        choices[8],
        choices[9],
        choices[10],
        choices[11],
        choices[12],
        choices[13],
        choices[14],
        choices[15],
    ]);
    let path = text.map_or(String::from("a\0b"), |text| {
        text.to_string_lossy().into_owned()
    });
    let is_text = !path.contains('\0');
    let offsets = choices[4] & 1 == 1;
    let file = if choices[4] & 2 == 0 {
        SaveFile::File {
            path,
            size: number,
            modified: UNIX_EPOCH + Duration::from_secs(number >> 24),
            offsets,
        }
    } else {
        SaveFile::Options {
            name: "options",
            template: path,
        }
    };
    let is_file = matches!(file, SaveFile::File { .. });
    let mut lent = Lent::default();
    // SAFETY: memory that is longer than any packet.
    let view = unsafe { SavePacket::new(packet.pointer(), interface) };
    assert_eq!(view.is_some(), packet.is_marked);
    let Some(mut view) = view else { return };
    let filled = view.fill(file, &mut lent).is_some();
    let fits = is_text && (!is_file || i64::try_from(number).is_ok());
    assert_eq!(filled, fits);
    if filled && is_file {
        let flags = packet.words[layout.flags / 8];
        assert_eq!(flags & FO_OFFSETS != 0, offsets);
        assert_ne!(packet.words[layout.fname / 8], 0);
    }
    assert_eq!(usize::try_from(packet.int(0)), Ok(layout.size));
    assert_eq!(usize::try_from(packet.int(layout.pkt_end)), Ok(layout.size));
}

fn restore(mut packet: Packet, interface: &'static Interface, text: Option<&CString>) {
    let layout = &interface.restore;
    packet.put(layout.ofname, pointer_of(text));
    // SAFETY: memory that is longer than any packet, with a text in it.
    let view = unsafe { RestorePacket::new(packet.pointer(), interface) };
    assert_eq!(view.is_some(), packet.is_marked);
    let Some(mut view) = view else { return };
    let file = view.file();
    let path = text.map(|text| text.to_string_lossy()).unwrap_or_default();
    assert_eq!(file.path, path);
    assert!(i64::try_from(file.size).is_ok());
    drop(file);
    view.set_status(Some(CreateStatus::Extract));
    assert_eq!(packet.int(layout.create_status), CF_EXTRACT);
}

fn io(mut packet: Packet, choices: [u8; 16]) {
    // A hostile count would be a broken promise about the buffer: the buffer is as long as the packet says.
    let at = offset_of!(io_pkt, count);
    let count = usize::from(u16::from_le_bytes([choices[4], choices[5]]));
    let negative = choices[6] & 1 == 1;
    let signed = i32::try_from(count).expect("16 bits") * if negative { -1 } else { 1 };
    let mut word = packet.words[at / 8].to_ne_bytes();
    word[at % 8..at % 8 + 4].copy_from_slice(&signed.to_ne_bytes());
    packet.words[at / 8] = u64::from_ne_bytes(word);
    let mut buffer = vec![0x5a_u8; count];
    let is_null = choices[6] & 2 == 2;
    let pointer = if is_null {
        null_mut()
    } else {
        buffer.as_mut_ptr()
    };
    packet.put(offset_of!(io_pkt, buf), pointer);
    // SAFETY: memory that is longer than the packet, with a buffer of its count.
    let view = unsafe { IoPacket::new(packet.pointer().cast()) };
    assert_eq!(view.is_some(), packet.is_marked);
    let Some(mut view) = view else { return };
    view.fail(libc::EIO);
    let done = match view.io() {
        Some(Io::Read(room)) => {
            assert!(!is_null && !negative && room.len() == count && count > 0);
            room.fill(1);
            IoDone::Read {
                len: room.len(),
                offset: u64::MAX >> (choices[7] & 3),
            }
        }
        Some(Io::Write(data)) => {
            assert!(!is_null && data.len() == count && (count == 0 || !negative));
            assert!(data.iter().all(|&byte| byte == 0x5a));
            IoDone::Written(data.len())
        }
        Some(Io::Open | Io::Close | Io::Seek(_)) => IoDone::Done,
        None => {
            view.fail_seek();
            return;
        }
    };
    let fits = !matches!(done, IoDone::Read { offset, .. } if i64::try_from(offset).is_err());
    assert_eq!(view.done(done).is_some(), fits);
}

fn object(mut packet: Packet, text: Option<&CString>) {
    for member in [
        offset_of!(restore_object_pkt, object_name),
        offset_of!(restore_object_pkt, object),
        offset_of!(restore_object_pkt, plugin_name),
    ] {
        packet.put(member, pointer_of(text));
    }
    let len = packet.int(offset_of!(restore_object_pkt, object_len));
    // SAFETY: memory that is longer than the packet, with texts in it.
    let found = unsafe { restore_object(packet.pointer()) };
    assert_eq!(found.is_ok(), packet.is_marked && len >= 0);
    if let Ok(Some(object)) = found {
        let text = text.map(|text| text.to_string_lossy()).unwrap_or_default();
        assert_eq!((&object.name, &object.content), (&text, &text));
        assert_eq!(object.command.expose(), text);
        assert_eq!(i32::try_from(object.len), Ok(len));
    }
}

fn query(mut packet: Packet, text: Option<&CString>) {
    for member in [
        offset_of!(query_pkt, parameter),
        offset_of!(query_pkt, command),
    ] {
        packet.put(member, pointer_of(text));
    }
    // SAFETY: memory that is longer than the packet, with texts in it.
    let view = unsafe { QueryPacket::new(packet.pointer().cast()) };
    assert_eq!(view.is_some(), packet.is_marked);
    let Some(mut view) = view else { return };
    let mut lent = Lent::default();
    let parameter = view.parameter();
    assert_eq!(parameter, view.command());
    view.answer(&format!("{parameter}\0"), &mut lent);
    assert_ne!(packet.words[offset_of!(query_pkt, result) / 8], 0);
}
