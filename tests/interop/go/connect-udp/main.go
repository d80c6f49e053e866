// Asks a UDP echo server through a gateway with masque-go: CONNECT-UDP by somebody else's hand.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"time"

	"github.com/quic-go/masque-go"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/yosida95/uritemplate/v3"
)

func main() {
	gateway := flag.String("gateway", "", "host:port")
	name := flag.String("name", "", "name in the certificate, and :authority")
	ca := flag.String("ca", "", "PEM file")
	token := flag.String("token", "", "bearer token")
	target := flag.String("target", "", "host:port of a UDP echo server")
	want := flag.Int("want", 200, "status that is expected")
	flag.Parse()
	log.SetFlags(0)

	pem, err := os.ReadFile(*ca)
	check("ca", err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	transport := masque.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: *name, NextProtos: []string{http3.NextProtoH3}},
		QUICConfig:      &quic.Config{EnableDatagrams: true, InitialPacketSize: 1350},
		DialAddr: func(ctx context.Context, _ string, t *tls.Config, q *quic.Config) (*quic.Conn, error) {
			return quic.DialAddr(ctx, *gateway, t, q)
		},
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	template := uritemplate.MustNew("https://" + *name + "/.well-known/masque/udp/{target_host}/{target_port}/")
	request, err := masque.NewRequest(ctx, template, *target)
	check("request", err)
	request.Header().Set("Authorization", "Bearer "+*token)
	conn, response, err := transport.Dial(request)
	if response == nil {
		log.Fatalf("no answer: %v", err)
	}
	if response.StatusCode != *want {
		log.Fatalf("status %d, wanted %d: %v", response.StatusCode, *want, err)
	}
	if *want != 200 {
		fmt.Println("refused with", *want)
		return
	}
	check("dial", err)
	defer conn.Close()
	fmt.Println("remote address", conn.RemoteAddr())
	echo(conn)
}

func echo(conn net.PacketConn) {
	for size := 1; size <= 1200; size += 109 {
		sent := bytes.Repeat([]byte{byte(size)}, size)
		buffer := make([]byte, 2000)
		_, err := conn.WriteTo(sent, nil)
		check("send", err)
		check("deadline", conn.SetReadDeadline(time.Now().Add(2*time.Second)))
		n, _, err := conn.ReadFrom(buffer)
		check("receive", err)
		if !bytes.Equal(buffer[:n], sent) {
			log.Fatalf("%d bytes went, %d others came", size, n)
		}
	}
	fmt.Println("echoes")
}

func check(what string, err error) {
	if err != nil {
		log.Fatalf("%s: %v", what, err)
	}
}
