//! Parse, dispatch; nothing else.
fn main() -> std::process::ExitCode {
    bulkhead::cli::main()
}
