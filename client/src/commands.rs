//! What the commands do, from parsed command line to exit.

use std::{
    ffi::OsString,
    future::Future,
    io::{self, Write as _},
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command as Program, Stdio},
    rc::Rc,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, setsid},
};
use tokio::{
    net::{TcpListener, UdpSocket},
    signal::unix::{SignalKind, signal},
    task::LocalSet,
};

use crate::{
    check,
    cli::{Cli, Command, Protocol},
    config::{ConfigError, Settings, Sources, read_link},
    console::Console,
    control,
    dial::{Dialer, Target},
    forward,
    key::{self, KeyError},
    proxy,
    stage::{Failure, Stage, exit},
    state::Folder,
    status::Phase,
    tunnel,
};

/// Tells the process it is the one in the background.
const DETACHED: &str = "BAUTA_DETACHED";
/// How long a running tunnel may take to go down by itself.
const DOWN_PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take after it was killed.
const KILL_PATIENCE: Duration = Duration::from_secs(2);
/// How often is looked whether something has happened.
const POLL: Duration = Duration::from_millis(50);

/// Runs a command and returns the exit code.
pub fn run(cli: Cli) -> anyhow::Result<u8> {
    let sources = sources(&cli);
    match cli.command {
        Command::Up { link, detach, paths, policy, shape, rate } => up(
            Sources { paths, policy, shape, rate, ..sources },
            cli.link_file.as_deref(),
            link,
            detach,
        ),
        Command::Down => block_on(down(&sources)),
        Command::Status { json, watch } => block_on(status(&sources, json, watch)),
        Command::Forward { protocol, local, target } => {
            let settings = Settings::load(with_link(sources, cli.link_file.as_deref(), None)?)?;
            block_on(forward(settings, protocol, local, target))
        }
        Command::Proxy { socks, http } => {
            let settings = Settings::load(with_link(sources, cli.link_file.as_deref(), None)?)?;
            block_on(serve_proxies(settings, socks, http))
        }
        Command::Key { replace } => show_key(&sources, replace),
        Command::Check => {
            let settings = Settings::load(with_link(sources, cli.link_file.as_deref(), None)?)?;
            block_on(async {
                check::run(&settings, &mut io::stdout()).await?;
                Ok(0)
            })
        }
    }
}

/// The exit code of an error.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        failure.exit_code()
    } else if error.downcast_ref::<ConfigError>().is_some() {
        exit::CONFIG
    } else {
        exit::OTHER
    }
}

fn block_on(work: impl Future<Output = anyhow::Result<u8>>) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, work)
}

fn sources(cli: &Cli) -> Sources {
    Sources {
        file: cli.config.clone(),
        name: cli.name.clone(),
        state_dir: cli.state_dir.clone(),
        link: None,
        key_file: cli.key_file.clone(),
        cert: cli.cert.clone(),
        paths: Vec::new(),
        policy: None,
        shape: None,
        rate: None,
    }
}

/// Prints the public key of this machine.
fn show_key(sources: &Sources, replace: bool) -> anyhow::Result<u8> {
    if let Some(cert) = sources.cert_path()? {
        writeln!(io::stdout(), "{}", key::certificate_text(&cert)?)?;
        return Ok(0);
    }
    let path = sources.key_path()?;
    let key = match key::load(&path) {
        Ok(key) if !replace => key,
        Err(KeyError::Absent(_)) => key::create(&path, false)?,
        Err(error) if !replace => return Err(error.into()),
        _ => key::create(&path, true)?,
    };
    writeln!(io::stdout(), "{}", key::public_text(&key))?;
    Ok(0)
}

/// Adds the link: given in words, in a file, or in the environment, in this order.
fn with_link(
    mut sources: Sources,
    file: Option<&Path>,
    given: Option<String>,
) -> Result<Sources, ConfigError> {
    sources.link = match (given, file) {
        (Some(given), _) if given == "-" => Some(read_link(Path::new("-"))?),
        (Some(given), _) => Some(("command line".into(), given)),
        (None, Some(file)) => Some(read_link(file)?),
        (None, None) => std::env::var("BAUTA_LINK").ok().map(|link| ("BAUTA_LINK".into(), link)),
    };
    Ok(sources)
}

fn up(
    sources: Sources,
    file: Option<&Path>,
    link: Option<String>,
    detach: bool,
) -> anyhow::Result<u8> {
    if let Some(secret) = link.as_deref().filter(|link| *link != "-") {
        return hide(secret);
    }
    let sources = with_link(sources, file, link)?;
    let text = sources.link.as_ref().map(|(_, text)| text.clone());
    let settings = Settings::load(sources)?;
    let folder = Folder::new(&settings.state_dir, &settings.name);
    let background = std::env::var_os(DETACHED).is_some();
    if detach && !background {
        return into_background(&folder, text.as_deref());
    }
    if background {
        // A leader of a process group cannot leave its session; then it is in the background already.
        let _ = setsid();
    }
    let mut console = Console::new(background.then(|| folder.log()));
    block_on(async {
        match tunnel::run(&settings, &mut console).await {
            Ok(()) => Ok(0),
            Err(failure) => {
                Console::failed(&failure);
                Err(failure.into())
            }
        }
    })
}

/// Begins anew without the link on the command line, where every user of the machine can read it.
fn hide(link: &str) -> anyhow::Result<u8> {
    tracing::warn!(
        "a link on the command line shows in the process list and the shell's history; `bauta up -` and --link-file keep it out"
    );
    let (reader, mut writer) = io::pipe()?;
    // A link is shorter than a pipe holds, so that nobody has to read at the same time.
    writer.write_all(link.as_bytes())?;
    drop(writer);
    let args = without_link(std::env::args_os().skip(1), link);
    let error = Program::new(std::env::current_exe()?).args(args).stdin(Stdio::from(reader)).exec();
    Err(error).context("the client cannot begin anew")
}

fn without_link(args: impl Iterator<Item = OsString>, link: &str) -> Vec<OsString> {
    args.map(|arg| if arg == *link { "-".into() } else { arg }).collect()
}

/// Starts the tunnel in another process and waits until it is up, or has failed.
fn into_background(folder: &Folder, link: Option<&str>) -> anyhow::Result<u8> {
    let mut args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let mut program = Program::new(std::env::current_exe()?);
    let mut pipe = None;
    if let Some(link) = link {
        let (reader, mut writer) = io::pipe()?;
        writer.write_all(link.as_bytes())?;
        pipe = Some(reader);
        if !args.iter().any(|arg| arg == "-") {
            args.push("-".into());
        }
    }
    program.stdin(pipe.map_or_else(Stdio::null, Stdio::from));
    let mut child = program.args(args).env(DETACHED, "1").env_remove("BAUTA_LINK").spawn()?;
    block_on(async {
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status.code().and_then(|c| c.try_into().ok()).unwrap_or(exit::OTHER));
            }
            if control::status(&folder.socket())
                .await
                .is_ok_and(|s| s.phase == Phase::Up && s.pid == child.id())
            {
                return Ok(0);
            }
            tokio::time::sleep(POLL).await;
        }
    })
}

async fn down(sources: &Sources) -> anyhow::Result<u8> {
    let (state_dir, name) = sources.place()?;
    let folder = Folder::new(&state_dir, &name);
    let say = |text: &str| writeln!(io::stdout(), "{name}: {text}");
    if !folder.exists() {
        say("not up, and nothing to undo")?;
        return Ok(0);
    }
    let hold = || {
        folder.hold().map_err(|e| {
            Failure::new(
                Stage::Privileges,
                format_args!("the state cannot be read: {e}"),
                "run it as root",
            )
        })
    };
    let mut held = hold()?;
    if held.is_none() {
        let asked = control::down(&folder.socket()).await;
        let pid = folder.peek().map(|s| s.pid).and_then(|pid| i32::try_from(pid).ok());
        if asked.is_err()
            && let Some(pid) = pid
        {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        held = released(&hold, DOWN_PATIENCE).await?;
        if held.is_none()
            && let Some(pid) = pid
        {
            say("does not answer; killing it")?;
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            held = released(&hold, KILL_PATIENCE).await?;
        }
    }
    let mut held =
        held.ok_or_else(|| anyhow!("the tunnel does not end; kill it and run `bauta down` again"))?;
    let remains = !held.state().changes.is_empty();
    let problems = held.restore().await;
    if !problems.is_empty() {
        return Err(Failure::new(
            Stage::Routes,
            format_args!("not everything could be restored: {}", problems.join("; ")),
            "run `bauta down` again when the cause is gone",
        )
        .into());
    }
    say(if remains { "down; what a killed run had left is undone" } else { "down" })?;
    Ok(0)
}

/// Waits until the other process has let the folder go.
async fn released<T>(
    hold: &impl Fn() -> Result<Option<T>, Failure>,
    patience: Duration,
) -> Result<Option<T>, Failure> {
    let waiting = async {
        loop {
            if let Some(held) = hold()? {
                return Ok(Some(held));
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(patience, waiting).await.unwrap_or(Ok(None))
}

async fn status(sources: &Sources, json: bool, watch: bool) -> anyhow::Result<u8> {
    let (state_dir, name) = sources.place()?;
    let folder = Folder::new(&state_dir, &name);
    loop {
        let code = match control::status(&folder.socket()).await {
            Ok(status) if json => {
                writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&status)?)?;
                0
            }
            Ok(status) => {
                writeln!(io::stdout(), "{status}")?;
                0
            }
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                return Err(Failure::new(
                    Stage::Privileges,
                    "the control socket is root's",
                    "run it as root",
                )
                .into());
            }
            Err(_) => {
                let remains = folder.in_use();
                if json {
                    let down =
                        serde_json::json!({ "name": name, "phase": "down", "remains": remains });
                    writeln!(io::stdout(), "{down:#}")?;
                } else if remains {
                    writeln!(
                        io::stdout(),
                        "{name}: not running, but a killed run has left its kill switch or routes; `bauta up` takes them over, `bauta down` undoes them"
                    )?;
                } else {
                    writeln!(io::stdout(), "{name}: not up")?;
                }
                exit::NOT_RUNNING
            }
        };
        if !watch {
            return Ok(code);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn forward(
    settings: Settings,
    protocol: Protocol,
    local: SocketAddr,
    target: Target,
) -> anyhow::Result<u8> {
    let dialer = Dialer::start(Rc::new(settings));
    match protocol {
        Protocol::Tcp => {
            let listener = TcpListener::bind(local).await.with_context(|| in_use(local))?;
            writeln!(io::stdout(), "tcp {} → {target}", listener.local_addr()?)?;
            until_signal(forward::tcp(listener, dialer, target)).await
        }
        Protocol::Udp => {
            let socket = UdpSocket::bind(local).await.with_context(|| in_use(local))?;
            writeln!(io::stdout(), "udp {} → {target}", socket.local_addr()?)?;
            until_signal(async { drop(forward::udp(socket, dialer, target).await) }).await
        }
    }
}

fn in_use(local: SocketAddr) -> String {
    format!("cannot listen on {local}; does another program (`ss -lntup` names it)?")
}

async fn serve_proxies(
    settings: Settings,
    socks: Option<SocketAddr>,
    http: Option<SocketAddr>,
) -> anyhow::Result<u8> {
    let (socks, http) = match (socks, http) {
        (None, None) => (settings.proxy.socks, settings.proxy.http),
        given => given,
    };
    let socks = socks.or_else(|| http.is_none().then(|| ([127, 0, 0, 1], 1080).into()));
    let dialer = Dialer::start(Rc::new(settings));
    if let Some(local) = socks {
        let listener = TcpListener::bind(local).await.with_context(|| in_use(local))?;
        writeln!(io::stdout(), "SOCKS5 on {}", listener.local_addr()?)?;
        tokio::task::spawn_local(proxy::socks(listener, dialer.clone()));
    }
    if let Some(local) = http {
        let listener = TcpListener::bind(local).await.with_context(|| in_use(local))?;
        writeln!(io::stdout(), "HTTP proxy on {}", listener.local_addr()?)?;
        tokio::task::spawn_local(proxy::http(listener, dialer));
    }
    until_signal(std::future::pending()).await
}

async fn until_signal(work: impl Future<Output = ()>) -> anyhow::Result<u8> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        () = work => Err(anyhow!("the socket has failed")),
        _ = interrupt.recv() => Ok(0),
        _ = terminate.recv() => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_is_replaced_wherever_it_stands() {
        let args = ["--config", "c", "up", "bauta://t@h", "-v"].map(OsString::from);
        let hidden = without_link(args.into_iter(), "bauta://t@h");
        assert_eq!(hidden, ["--config", "c", "up", "-", "-v"]);
    }

    #[test]
    fn exit_codes_follow_the_cause() {
        let config: anyhow::Error = ConfigError::Missing("x".into()).into();
        let failure: anyhow::Error = Failure::certificate("h", "expired").into();
        assert_eq!((exit_code(&config), exit_code(&failure)), (exit::CONFIG, exit::CERTIFICATE));
        assert_eq!(exit_code(&anyhow!("x")), exit::OTHER);
    }
}
