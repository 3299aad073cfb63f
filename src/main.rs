//! Parse, dispatch; nothing else.
fn main() -> std::process::ExitCode {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("keys") => {
            let dir = bulkhead::proofs::keys::cache_dir();
            for e in bulkhead::proofs::keys::ensure_2kib(&dir, &|p| eprintln!("{p:?}")).unwrap() {
                println!("{e:?}");
            }
            println!("{:?}", bulkhead::proofs::keys::check(&dir));
            std::process::ExitCode::SUCCESS
        }
        Some("prover") => bulkhead::proofs::child::main(),
        _ => std::process::ExitCode::from(2),
    }
}
