//! Whether a system is there: installs what is missing, and asks for its version.

use std::process::{Command, Stdio};

use crate::system::System;

/// Installs a system from Debian's packages when it is missing.
pub fn install(system: &System) -> Result<(), String> {
    if system.needs.iter().all(|path| path.exists()) {
        return Ok(());
    }
    let packages = system.packages.join(" ");
    eprintln!("{}: installing {packages}", system.name);
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        // No service of theirs may start here.
        command.env("RUNLEVEL", "1").env("DEBIAN_FRONTEND", "noninteractive");
        command.status().is_ok_and(|status| status.success())
    };
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(system.packages.iter().map(String::as_str));
    let _ = apt(&["update", "-qq"]);
    match apt(&arguments) && system.needs.iter().all(|path| path.exists()) {
        true => Ok(()),
        false => Err(format!("{} is missing; as root: apt-get install {packages}", system.name)),
    }
}

/// The first line that its version command prints.
pub fn version(system: &System) -> String {
    let Some(command) = &system.version else { return "unknown".to_owned() };
    let bin = std::env::current_exe().unwrap_or_default();
    let bin = bin.parent().map(|bin| bin.display().to_string()).unwrap_or_default();
    let command = command.replace("{bin}", &bin);
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap_or_default()).args(words).output();
    let Ok(output) = output else { return "unknown".to_owned() };
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).lines().next().unwrap_or("unknown").to_owned()
}
