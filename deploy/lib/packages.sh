# Debian packages, installed only where the program or file they bring is missing. Sourced after ui.sh.

# need_packages PROGRAM-OR-FILE:PACKAGE… A word with a slash is a path, and may be a pattern.
need_packages() {
  local pair need missing=()
  for pair in "$@"; do
    need=${pair%%:*}
    case $need in
      */*) compgen -G "$need" >/dev/null ;;
      *) PATH=$PATH:/usr/sbin:/sbin command -v "$need" >/dev/null ;;
    esac || missing+=("${pair#*:}")
  done
  [ ${#missing[@]} -eq 0 ] && return
  command -v apt-get >/dev/null || { bad packages "no apt-get here; install yourself: ${missing[*]}"; return 1; }
  [ "$(id -u)" = 0 ] || { bad packages "needs root to install: apt-get install ${missing[*]}"; return 1; }
  step packages "installing by apt: ${missing[*]}"
  _apt update && _apt install -y --no-install-recommends "${missing[@]}"
}

_apt() {
  local log
  log=$(mktemp)
  if ! DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@" >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    bad packages "apt-get $* failed, see above"
    return 1
  fi
  rm -f "$log"
}
