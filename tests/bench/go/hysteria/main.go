// Hysteria 2, server and client, out of its own core library: a local TCP port that leads to a target through the server.
//
//	hysteria server -listen ADDRESS:PORT -cert PEM -key PEM
//	hysteria client -server ADDRESS:PORT -name NAME -ca PEM -listen ADDRESS:PORT -target HOST:PORT [-rate MBIT]
//
// $HYSTERIA_AUTH is the password of both. Where the client names no rate, congestion control is Hysteria's BBR, else its Brutal.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"flag"
	"io"
	"log"
	"net"
	"os"

	"github.com/apernet/hysteria/core/v2/client"
	"github.com/apernet/hysteria/core/v2/server"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) < 2 {
		log.Fatal("hysteria server|client …")
	}
	flags := flag.NewFlagSet("hysteria", flag.ExitOnError)
	listen := flags.String("listen", "", "address:port; UDP at the server, TCP at the client")
	cert := flags.String("cert", "", "server: PEM file")
	key := flags.String("key", "", "server: PEM file")
	gateway := flags.String("server", "", "client: address:port")
	name := flags.String("name", "", "client: name in the certificate")
	ca := flags.String("ca", "", "client: PEM file of the authority")
	target := flags.String("target", "", "client: where the local port leads")
	rate := flags.Uint64("rate", 0, "client: Mbit/s each way, sent at whatever is lost")
	check("flags", flags.Parse(os.Args[2:]))
	switch os.Args[1] {
	case "server":
		serve(*listen, *cert, *key)
	case "client":
		forward(*gateway, *name, *ca, *listen, *target, *rate)
	default:
		log.Fatalf("no command is called %s", os.Args[1])
	}
}

type password string

func (p password) Authenticate(_ net.Addr, auth string, _ uint64) (bool, string) {
	return auth == string(p), "bench"
}

func serve(listen, cert, key string) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	check("certificate", err)
	conn, err := net.ListenPacket("udp", listen)
	check("listen", err)
	hysteria, err := server.NewServer(&server.Config{
		TLSConfig:     server.TLSConfig{Certificates: []tls.Certificate{pair}},
		Conn:          conn,
		Authenticator: password(os.Getenv("HYSTERIA_AUTH")),
	})
	check("server", err)
	check("serve", hysteria.Serve())
}

func forward(gateway, name, ca, listen, target string, rate uint64) {
	pem, err := os.ReadFile(ca)
	check("ca", err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	address, err := net.ResolveUDPAddr("udp", gateway)
	check("server address", err)
	hysteria, _, err := client.NewClient(&client.Config{
		ServerAddr:      address,
		Auth:            os.Getenv("HYSTERIA_AUTH"),
		TLSConfig:       client.TLSConfig{ServerName: name, RootCAs: roots},
		BandwidthConfig: client.BandwidthConfig{MaxTx: rate * 1e6 / 8, MaxRx: rate * 1e6 / 8},
	})
	check("connect", err)
	listener, err := net.Listen("tcp", listen)
	check("listen", err)
	for {
		local, err := listener.Accept()
		check("accept", err)
		go func() {
			defer local.Close()
			remote, err := hysteria.TCP(target)
			if err != nil {
				log.Printf("%s: %v", target, err)
				return
			}
			defer remote.Close()
			go func() {
				_, _ = io.Copy(remote, local)
				remote.Close()
			}()
			_, _ = io.Copy(local, remote)
		}()
	}
}

func check(what string, err error) {
	if err != nil {
		log.Fatalf("%s: %v", what, err)
	}
}
