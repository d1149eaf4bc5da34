//! fanli's command line.

fn main() -> std::process::ExitCode {
    fanli::cli::main()
}
