//! The program; see the library.

fn main() -> std::process::ExitCode {
    #[cfg(windows)]
    return firstboot::windows::main();
    #[cfg(not(windows))]
    {
        eprintln!("vconverter-firstboot is a program for converted Windows guests");
        std::process::ExitCode::from(2)
    }
}
