//! The `localnet` binary.

fn main() -> shared::Exit {
    localnet::cli::main(shared::version!())
}
