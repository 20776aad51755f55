//! The host's side of one job: its functions, its packets, its calls.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::transmute;
use std::ptr;
use std::thread::ThreadId;

use crate::library::Plugin;
use crate::numbers::{
    IO_BUF, IO_COUNT, IO_END, IO_ERRNO, IO_FLAGS, IO_FUNC, IO_OFFSET, IO_SIZE, IO_STATUS,
    IO_WHENCE, Numbers, RESTORE_CREATE_STATUS, RESTORE_END, RESTORE_OFNAME, RESTORE_SIZE,
    RESTORE_STATP, RESTORE_WHERE, STAT_MODE, STAT_SIZE, funcs,
};

pub(crate) const RC_OK: c_int = 0;
pub(crate) const RC_ERROR: c_int = 2;
pub(crate) const RC_MORE: c_int = 3;
pub(crate) const RC_SEEN: c_int = 5;

/// `bpContext`.
#[repr(C)]
pub(crate) struct Context {
    host: *const Records,
    plugin: *mut c_void,
}

/// What the host knows and hears about a job.
pub(crate) struct Records {
    numbers: &'static Numbers,
    thread: ThreadId,
    /// Class (index into `message_types`) and text.
    messages: RefCell<Vec<(usize, String)>>,
    texts: RefCell<Vec<(i32, CString)>>,
    pub(crate) status: Cell<char>,
    pub(crate) job_id: i32,
}

/// The host's function table, never freed: sizes, then functions. Those that must not be called are null.
pub(crate) fn functions(numbers: &'static Numbers) -> &'static [u64] {
    let words = (numbers.host_funcs_size / 8) as usize;
    let mut table = vec![0_u64; words];
    table[0] = u64::from(numbers.host_funcs_size) | u64::from(numbers.version) << 32;
    table[2] = get_value as *const () as u64;
    table[4] = job_message as *const () as u64;
    table.leak()
}

/// `JobMessage`. Variadic in C; on this platform a caller passes the one argument after the format on the stack, where
/// a seventh fixed argument is, too.
extern "C" fn job_message(
    ctx: *const Context,
    _file: *const c_char,
    _line: c_int,
    kind: c_int,
    _mtime: i64,
    format: *const c_char,
    text: *const c_char,
) -> c_int {
    // SAFETY: the context of a live job.
    let records = unsafe { &*(*ctx).host };
    assert_eq!(
        std::thread::current().id(),
        records.thread,
        "messages come on the job's thread"
    );
    // SAFETY: C strings of the plugin.
    let (format, text) = unsafe { (CStr::from_ptr(format), CStr::from_ptr(text)) };
    assert_eq!(format, c"%s");
    let class = records
        .numbers
        .message_types
        .iter()
        .position(|&known| known == kind)
        .expect("a known message type");
    let text = text.to_str().expect("UTF-8");
    assert!(
        text.starts_with("azure-vm: ") && text.ends_with('\n'),
        "{text:?}"
    );
    records
        .messages
        .borrow_mut()
        .push((class, text.trim_end().to_owned()));
    RC_OK
}

/// `getBaculaValue`.
extern "C" fn get_value(ctx: *const Context, variable: c_int, value: *mut c_void) -> c_int {
    // SAFETY: the context of a live job.
    let records = unsafe { &*(*ctx).host };
    let number = match variable {
        1 => Some(records.job_id),
        7 => Some(records.status.get() as i32),
        _ => None,
    };
    if let Some(number) = number {
        // SAFETY: the caller's `int`.
        unsafe { value.cast::<c_int>().write(number) };
        return RC_OK;
    }
    let texts = records.texts.borrow();
    let text = texts
        .iter()
        .find(|(known, _)| *known == variable)
        .map_or(ptr::null(), |(_, text)| text.as_ptr());
    // SAFETY: the caller's `char *`.
    unsafe { value.cast::<*const c_char>().write(text) };
    RC_OK
}

/// Bytes of a packet, aligned, filled with garbage except for the marks.
pub(crate) struct Packet(Vec<u64>);

impl Packet {
    pub(crate) fn new(size: usize, end: usize, filler: u8) -> Self {
        let mut packet = Self(vec![u64::from_ne_bytes([filler; 8]); size.div_ceil(8)]);
        let mark = i32::try_from(size).expect("small");
        packet.set(0, mark);
        packet.set(end, mark);
        packet
    }

    pub(crate) fn set<T>(&mut self, offset: usize, value: T) {
        assert!(offset + size_of::<T>() <= self.0.len() * 8);
        // SAFETY: inside of the packet.
        unsafe {
            self.0
                .as_mut_ptr()
                .cast::<u8>()
                .add(offset)
                .cast::<T>()
                .write_unaligned(value);
        }
    }

    pub(crate) fn get<T: Copy>(&self, offset: usize) -> T {
        assert!(offset + size_of::<T>() <= self.0.len() * 8);
        // SAFETY: inside of the packet; only numbers and pointers are asked for.
        unsafe {
            self.0
                .as_ptr()
                .cast::<u8>()
                .add(offset)
                .cast::<T>()
                .read_unaligned()
        }
    }

    pub(crate) fn as_ptr(&mut self) -> *mut c_void {
        self.0.as_mut_ptr().cast()
    }

    /// The C string at `offset`.
    fn text(&self, offset: usize) -> Option<String> {
        let text: *const c_char = self.get(offset);
        if text.is_null() {
            return None;
        }
        // SAFETY: a C string of the plugin's, still lent.
        let text = unsafe { CStr::from_ptr(text) };
        Some(text.to_str().expect("UTF-8").to_owned())
    }
}

/// What `startBackupFile` said about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Saved {
    pub(crate) name: String,
    pub(crate) kind: i32,
    pub(crate) size: u64,
    pub(crate) mode: u32,
    pub(crate) offsets: bool,
    pub(crate) portable: bool,
    /// Name, content, index.
    pub(crate) object: Option<(String, String, i32)>,
}

/// What an I/O call answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IoAnswer {
    pub(crate) code: c_int,
    pub(crate) status: i32,
    pub(crate) errno: i32,
    pub(crate) offset: i64,
}

/// One job as the host runs it. The address stays the same, as the plugin keeps it for the job.
pub(crate) struct Job {
    plugin: &'static Plugin,
    context: Box<Context>,
    pub(crate) records: Box<Records>,
}

type ContextFn = unsafe extern "C" fn(*mut Context) -> c_int;
type PointerFn = unsafe extern "C" fn(*mut Context, *mut c_void) -> c_int;
type EventFn = unsafe extern "C" fn(*mut Context, *mut u32, *mut c_void) -> c_int;

impl Job {
    /// `newPlugin`.
    pub(crate) fn start(plugin: &'static Plugin, job_id: i32) -> Self {
        let records = Box::new(Records {
            numbers: plugin.numbers,
            thread: std::thread::current().id(),
            messages: RefCell::default(),
            texts: RefCell::default(),
            status: Cell::new('R'),
            job_id,
        });
        let context = Box::new(Context {
            host: &raw const *records,
            plugin: ptr::null_mut(),
        });
        let mut job = Self {
            plugin,
            context,
            records,
        };
        assert_eq!(job.call(funcs::NEW_PLUGIN), RC_OK);
        job
    }

    fn call(&mut self, func: usize) -> c_int {
        // SAFETY: the function at this place has this type; the context is live.
        unsafe {
            transmute::<*const c_void, ContextFn>(self.plugin.func(func))(&raw mut *self.context)
        }
    }

    /// A function that takes a packet or text.
    pub(crate) fn call_with(&mut self, func: usize, pointer: *mut c_void) -> c_int {
        // SAFETY: as above; the pointer is what the test wants to be passed.
        unsafe {
            transmute::<*const c_void, PointerFn>(self.plugin.func(func))(
                &raw mut *self.context,
                pointer,
            )
        }
    }

    pub(crate) fn set_text(&self, variable: i32, text: &str) {
        let mut texts = self.records.texts.borrow_mut();
        texts.retain(|(known, _)| *known != variable);
        texts.push((variable, CString::new(text).expect("no NUL")));
    }

    /// What was said since the last time.
    pub(crate) fn messages(&self) -> Vec<(usize, String)> {
        self.records.messages.take()
    }

    /// The messages of one class since the last time; forgets the others.
    pub(crate) fn messages_of(&self, class: usize) -> Vec<String> {
        self.messages()
            .into_iter()
            .filter_map(|(known, text)| (known == class).then_some(text))
            .collect()
    }

    /// An event whose value is passed as it is.
    pub(crate) fn event(&mut self, kind: u32, value: *mut c_void) -> c_int {
        let mut event = kind;
        // SAFETY: the function at this place has this type.
        unsafe {
            transmute::<*const c_void, EventFn>(self.plugin.func(funcs::EVENT))(
                &raw mut *self.context,
                &raw mut event,
                value,
            )
        }
    }

    /// An event whose value is a text.
    pub(crate) fn event_text(&mut self, kind: u32, text: &str) -> c_int {
        let text = CString::new(text).expect("no NUL");
        self.event(kind, text.as_ptr().cast_mut().cast())
    }

    /// An event whose value is a number in place of a pointer.
    pub(crate) fn event_number(&mut self, kind: u32, number: usize) -> c_int {
        self.event(kind, ptr::without_provenance_mut(number))
    }

    /// `startBackupFile` with a zeroed packet, as the host passes it.
    pub(crate) fn start_backup_file(&mut self) -> Result<Saved, c_int> {
        let layout = &self.plugin.numbers.save;
        let mut packet = Packet::new(layout.size, layout.end, 0);
        match self.call_with(funcs::START_BACKUP_FILE, packet.as_ptr()) {
            RC_OK => {}
            code => return Err(code),
        }
        let object_len: i32 = packet.get(layout.object_len);
        Ok(Saved {
            name: packet.text(layout.fname).expect("a name"),
            kind: packet.get(layout.type_),
            size: packet.get::<i64>(layout.statp + STAT_SIZE) as u64,
            mode: packet.get(layout.statp + STAT_MODE),
            offsets: packet.get::<u64>(layout.flags) & 1 << 30 != 0,
            portable: packet.get::<u8>(layout.portable) != 0,
            object: packet.text(layout.object_name).map(|name| {
                let content = packet.text(layout.object).expect("an object");
                assert_eq!(content.len(), object_len as usize);
                (name, content, packet.get(layout.index))
            }),
        })
    }

    pub(crate) fn end_backup_file(&mut self) -> c_int {
        self.call(funcs::END_BACKUP_FILE)
    }

    fn io(&mut self, func: i32, buffer: *mut u8, count: usize, offset: i64) -> IoAnswer {
        // What does not belong to the function is garbage on the host's stack.
        let mut packet = Packet::new(IO_SIZE, IO_END, 0xa5);
        packet.set(IO_FUNC, func);
        packet.set(IO_COUNT, i32::try_from(count).expect("small"));
        packet.set(IO_FLAGS, 0_i32);
        packet.set(IO_BUF, buffer);
        packet.set(IO_WHENCE, 0_i32);
        packet.set(IO_OFFSET, offset);
        let code = self.call_with(funcs::IO, packet.as_ptr());
        IoAnswer {
            code,
            status: packet.get(IO_STATUS),
            errno: packet.get(IO_ERRNO),
            offset: packet.get(IO_OFFSET),
        }
    }

    pub(crate) fn open(&mut self) -> IoAnswer {
        self.io(1, ptr::null_mut(), 0, 0)
    }

    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> IoAnswer {
        self.io(2, buffer.as_mut_ptr(), buffer.len(), -1)
    }

    pub(crate) fn write(&mut self, data: &[u8]) -> IoAnswer {
        self.io(3, data.as_ptr().cast_mut(), data.len(), -1)
    }

    pub(crate) fn close(&mut self) -> IoAnswer {
        self.io(4, ptr::null_mut(), 0, 0)
    }

    pub(crate) fn seek(&mut self, offset: i64) -> IoAnswer {
        self.io(5, ptr::null_mut(), 0, offset)
    }

    /// A function number that does not exist.
    pub(crate) fn nonsense(&mut self) -> IoAnswer {
        self.io(77, ptr::null_mut(), 0, 0)
    }

    /// `createFile`; the return code and `create_status`.
    pub(crate) fn create_file(&mut self, name: &str, size: u64, data_stream: i32) -> (c_int, i32) {
        let layout = &self.plugin.numbers.restore;
        let name = CString::new(name).expect("no NUL");
        let mut packet = Packet::new(RESTORE_SIZE, RESTORE_END, 0);
        packet.set(layout.stream, 1_i32);
        packet.set(layout.data_stream, data_stream);
        packet.set(layout.type_, 3_i32);
        packet.set(RESTORE_STATP + STAT_SIZE, size);
        packet.set(RESTORE_OFNAME, name.as_ptr());
        packet.set(RESTORE_WHERE, c"".as_ptr());
        let code = self.call_with(funcs::CREATE_FILE, packet.as_ptr());
        (code, packet.get(RESTORE_CREATE_STATUS))
    }

    /// `startRestoreFile`.
    pub(crate) fn start_restore_file(&mut self, command: &str) -> c_int {
        let command = CString::new(command).expect("no NUL");
        self.call_with(
            funcs::START_RESTORE_FILE,
            command.as_ptr().cast_mut().cast(),
        )
    }

    pub(crate) fn set_attributes(&mut self) -> c_int {
        let mut packet = Packet::new(RESTORE_SIZE, RESTORE_END, 0);
        self.call_with(funcs::SET_ATTRIBUTES, packet.as_ptr())
    }

    pub(crate) fn end_restore_file(&mut self) -> c_int {
        self.call(funcs::END_RESTORE_FILE)
    }

    pub(crate) fn check_file(&mut self, name: &str) -> c_int {
        let name = CString::new(name).expect("no NUL");
        self.call_with(funcs::CHECK_FILE, name.as_ptr().cast_mut().cast())
    }

    /// `queryParameter`.
    pub(crate) fn query(&mut self, parameter: &str, command: &str) -> String {
        let parameter = CString::new(parameter).expect("no NUL");
        let command = CString::new(command).expect("no NUL");
        let mut packet = Packet::new(48, 40, 0);
        packet.set(8, parameter.as_ptr());
        packet.set(16, command.as_ptr());
        assert_eq!(self.call_with(funcs::QUERY, packet.as_ptr()), RC_OK);
        packet.text(32).expect("an answer")
    }

    /// `freePlugin`.
    pub(crate) fn end(mut self) {
        self.free();
    }

    /// `freePlugin`, whatever it answers.
    pub(crate) fn end_with(mut self) -> c_int {
        self.call(funcs::FREE_PLUGIN)
    }

    fn free(&mut self) {
        if !self.context.plugin.is_null() {
            assert_eq!(self.call(funcs::FREE_PLUGIN), RC_OK);
            assert!(self.context.plugin.is_null());
        }
    }

    /// For a cancel from another thread.
    pub(crate) fn canceller(&mut self) -> Canceller {
        Canceller {
            plugin: self.plugin,
            context: &raw mut *self.context,
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.free();
    }
}

/// The console's thread with the context of the job that it cancels.
pub(crate) struct Canceller {
    plugin: &'static Plugin,
    context: *mut Context,
}

// SAFETY: the plugin takes this event on any thread; the test keeps the job alive.
unsafe impl Send for Canceller {}

impl Canceller {
    pub(crate) fn cancel(&self) -> c_int {
        let mut event = 14_u32;
        // SAFETY: the function at this place has this type; the job is alive.
        unsafe {
            transmute::<*const c_void, EventFn>(self.plugin.func(funcs::EVENT))(
                self.context,
                &raw mut event,
                ptr::null_mut(),
            )
        }
    }
}
