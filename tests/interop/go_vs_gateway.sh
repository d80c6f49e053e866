#!/bin/bash
# masque-go and connect-ip-go against a gateway. Prints `ok|FAIL name`. The driver sets GATEWAY NAME TOKEN CA BIN ECHO ECHO_NAME INNER.
set -u
bad=0
try() { # try NAME PROGRAM ARGS…
  local name=$1 said
  shift
  if said=$(timeout 20 "$BIN/$1" -gateway "$GATEWAY" -name "$NAME" -ca "$CA" "${@:2}" 2>&1); then
    echo "ok   $name"
  else
    echo "FAIL $name: $(tr '\n' ' ' <<<"$said")"
    bad=1
  fi
}
[[ -x $BIN/go-connect-udp ]] || { echo "FAIL go_peers_are_built: no Go toolchain when setup ran"; exit 1; }
try masque_go_echoes_by_address go-connect-udp -token "$TOKEN" -target "$ECHO:7"
try masque_go_echoes_by_name go-connect-udp -token "$TOKEN" -target "$ECHO_NAME:7"
try masque_go_with_a_wrong_token_meets_404 go-connect-udp -token wrong -target "$ECHO:7" -want 404
try connect_ip_go_is_given_an_address_and_pings go-connect-ip -token "$TOKEN" -targets "$ECHO,$INNER"
try connect_ip_go_asks_for_an_address_and_pings go-connect-ip -token "$TOKEN" -ask -targets "$ECHO"
try connect_ip_go_with_a_wrong_token_meets_404 go-connect-ip -token wrong -want 404
exit $bad
