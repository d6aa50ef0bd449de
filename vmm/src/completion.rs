// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `lockstorm completion`: a script that makes a shell complete the commands.

use std::io::{self, Write};

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::supervisor::status;

const EXAMPLES: &str = "\
Examples:
  lockstorm completion bash >~/.local/share/bash-completion/completions/lockstorm
  lockstorm completion zsh >\"${fpath[1]}/_lockstorm\"
  lockstorm completion fish >~/.config/fish/completions/lockstorm.fish";

/// Options of `lockstorm completion`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Completion {
    /// Which shell
    shell: KnownShell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KnownShell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script and returns the exit status.
pub fn run(completion: &Completion) -> u8 {
    // Who closes stdout does not want to know.
    let _ = io::stdout().write_all(&script(completion.shell));
    status::OK
}

fn script(shell: KnownShell) -> Vec<u8> {
    let shell = match shell {
        KnownShell::Bash => Shell::Bash,
        KnownShell::Zsh => Shell::Zsh,
        KnownShell::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "lockstorm", &mut script);
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_learns_every_command() {
        for shell in KnownShell::value_variants() {
            let script = String::from_utf8(script(*shell)).unwrap();
            for word in [
                "boot",
                "ctl",
                "top",
                "inject",
                "storm",
                "acknowledge",
                "json",
            ] {
                assert!(script.contains(word), "{shell:?}: {word}");
            }
        }
    }
}
