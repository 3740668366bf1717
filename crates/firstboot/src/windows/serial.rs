//! A line on a serial port. Unsafe for the port's settings.
#![allow(unsafe_code)]

use std::fs::OpenOptions;
use std::io::Write;
use std::os::windows::io::AsRawHandle;

use windows_sys::Win32::Devices::Communication::{
    COMMTIMEOUTS, DCB, GetCommState, NOPARITY, ONESTOPBIT, SetCommState, SetCommTimeouts,
};

use crate::{Error, Result};

/// Nobody may listen: then a line is given up after this time, in milliseconds.
const WRITE_TIMEOUT_MS: u32 = 10_000;

/// Writes `line` on a line of its own, at 115200 bits a second.
pub(super) fn write_line(port: &str, line: &str) -> Result<()> {
    let failed = |error| Error::io(format!("serial port {port}"), error);
    let mut file = OpenOptions::new().read(true).write(true).open(format!(r"\\.\{port}")).map_err(failed)?;
    let timeouts = COMMTIMEOUTS {
        WriteTotalTimeoutConstant: WRITE_TIMEOUT_MS,
        WriteTotalTimeoutMultiplier: 1,
        ..Default::default()
    };
    let mut state = DCB { DCBlength: u32::try_from(size_of::<DCB>()).unwrap_or(0), ..Default::default() };
    // SAFETY: the handle is open, both structs live through the calls. A port that keeps its settings is written to as it is.
    unsafe {
        SetCommTimeouts(file.as_raw_handle(), &raw const timeouts);
        if GetCommState(file.as_raw_handle(), &raw mut state) != 0 {
            (state.BaudRate, state.ByteSize, state.Parity, state.StopBits) = (115_200, 8, NOPARITY, ONESTOPBIT);
            // fBinary alone: no flow control that would wait for the other side
            state._bitfield = 1;
            SetCommState(file.as_raw_handle(), &raw const state);
        }
    }
    file.write_all(format!("\r\n{line}\r\n").as_bytes()).map_err(failed)
}
