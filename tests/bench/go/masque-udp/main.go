// CONNECT-UDP by masque-go, proxy and client: a local UDP port that leads to a target through the proxy.
//
//	masque-udp proxy -listen ADDRESS:PORT -name NAME -cert PEM -key PEM
//	masque-udp forward -proxy ADDRESS:PORT -name NAME -ca PEM -listen ADDRESS:PORT -target HOST:PORT
//
// A flow of its own for each local sender, as `bauta forward udp` has it.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"

	"github.com/quic-go/masque-go"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/yosida95/uritemplate/v3"
)

const (
	path       = "/.well-known/masque/udp/{target_host}/{target_port}/"
	packetSize = 1350 // of QUIC before path MTU discovery has found more; CONNECT-UDP's 1,200 bytes have to fit
	socketSize = 7 << 20
)

func main() {
	log.SetFlags(0)
	if len(os.Args) < 2 {
		log.Fatal("masque-udp proxy|forward …")
	}
	flags := flag.NewFlagSet("masque-udp", flag.ExitOnError)
	listen := flags.String("listen", "", "address:port")
	name := flags.String("name", "", "name in the certificate")
	cert := flags.String("cert", "", "proxy: PEM file")
	key := flags.String("key", "", "proxy: PEM file")
	gateway := flags.String("proxy", "", "forward: address:port")
	ca := flags.String("ca", "", "forward: PEM file of the authority")
	target := flags.String("target", "", "forward: where the local port leads")
	check("flags", flags.Parse(os.Args[2:]))
	switch os.Args[1] {
	case "proxy":
		serve(*listen, *name, *cert, *key)
	case "forward":
		forward(*gateway, *name, *ca, *listen, *target)
	default:
		log.Fatalf("no command is called %s", os.Args[1])
	}
}

func serve(listen, name, cert, key string) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	check("certificate", err)
	_, port, err := net.SplitHostPort(listen)
	check("listen", err)
	template := uritemplate.MustNew("https://" + name + ":" + port + path)
	proxy := masque.Proxy{}
	mux := http.NewServeMux()
	mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		request, err := masque.ParseProxyRequest(r, template)
		if err != nil {
			log.Printf("request: %v", err)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if err := proxy.Proxy(w, request); err != nil {
			log.Printf("proxy: %v", err)
		}
	})
	server := http3.Server{
		Addr:            listen,
		Handler:         mux,
		TLSConfig:       http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{pair}}),
		QUICConfig:      &quic.Config{EnableDatagrams: true, InitialPacketSize: packetSize},
		EnableDatagrams: true,
	}
	check("serve", server.ListenAndServe())
}

func forward(gateway, name, ca, listen, target string) {
	pem, err := os.ReadFile(ca)
	check("ca", err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	transport := masque.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: name, NextProtos: []string{http3.NextProtoH3}},
		QUICConfig:      &quic.Config{EnableDatagrams: true, InitialPacketSize: packetSize},
		DialAddr: func(ctx context.Context, _ string, t *tls.Config, q *quic.Config) (*quic.Conn, error) {
			return quic.DialAddr(ctx, gateway, t, q)
		},
	}
	_, port, err := net.SplitHostPort(gateway)
	check("proxy", err)
	template := uritemplate.MustNew("https://" + name + ":" + port + path)
	address, err := net.ResolveUDPAddr("udp", listen)
	check("listen", err)
	local, err := net.ListenUDP("udp", address)
	check("listen", err)
	check("socket", local.SetReadBuffer(socketSize))
	flows := map[netip.AddrPort]net.PacketConn{}
	packet := make([]byte, 2048)
	for {
		n, from, err := local.ReadFromUDPAddrPort(packet)
		check("receive", err)
		flow := flows[from]
		if flow == nil {
			flow = dial(&transport, template, target)
			flows[from] = flow
			go back(flow, local, from)
		}
		// What does not fit into the queue is lost, as on any path.
		_, _ = flow.WriteTo(packet[:n], nil)
	}
}

func dial(transport *masque.Transport, template *uritemplate.Template, target string) net.PacketConn {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	request, err := masque.NewRequest(ctx, template, target)
	check("request", err)
	flow, response, err := transport.Dial(request)
	check("dial", err)
	if response.StatusCode != http.StatusOK {
		log.Fatalf("status %d", response.StatusCode)
	}
	return flow
}

func back(flow net.PacketConn, local *net.UDPConn, to netip.AddrPort) {
	packet := make([]byte, 2048)
	for {
		n, _, err := flow.ReadFrom(packet)
		if err != nil {
			log.Printf("flow: %v", err)
			return
		}
		_, _ = local.WriteToUDPAddrPort(packet[:n], to)
	}
}

func check(what string, err error) {
	if err != nil {
		log.Fatalf("%s: %v", what, err)
	}
}
