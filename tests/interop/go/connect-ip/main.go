// Pings through a gateway with connect-ip-go: CONNECT-IP by somebody else's hand. No TUN: the ICMP is made here.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/netip"
	"os"
	"strings"
	"time"

	connectip "github.com/quic-go/connect-ip-go"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/yosida95/uritemplate/v3"
)

const headerLength = 20

func main() {
	gateway := flag.String("gateway", "", "host:port")
	name := flag.String("name", "", "name in the certificate, and :authority")
	ca := flag.String("ca", "", "PEM file")
	token := flag.String("token", "", "bearer token")
	targets := flag.String("targets", "", "IPv4 addresses to ping, with commas between")
	ask := flag.Bool("ask", false, "send ADDRESS_REQUEST instead of waiting to be given an address")
	want := flag.Int("want", 200, "status that is expected")
	flag.Parse()
	log.SetFlags(0)

	pem, err := os.ReadFile(*ca)
	check("ca", err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	transport := connectip.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: *name, NextProtos: []string{http3.NextProtoH3}},
		QUICConfig:      &quic.Config{EnableDatagrams: true, InitialPacketSize: 1400},
		DialAddr: func(ctx context.Context, _ string, t *tls.Config, q *quic.Config) (*quic.Conn, error) {
			return quic.DialAddr(ctx, *gateway, t, q)
		},
	}
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	// The library knows no variables in the template: the wildcards are written out.
	request, err := connectip.NewRequest(ctx, uritemplate.MustNew("https://"+*name+"/.well-known/masque/ip/*/*/"))
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

	if *ask {
		_, err = conn.RequestAddresses([]netip.Prefix{netip.MustParsePrefix("0.0.0.0/32"), netip.MustParsePrefix("::/128")})
		check("request addresses", err)
	}
	own, err := address(ctx, conn)
	check("address", err)
	routes, err := conn.Routes(ctx)
	check("routes", err)
	fmt.Println("address", own, "routes", routes)
	for i, target := range strings.Split(*targets, ",") {
		check("ping "+target, ping(ctx, conn, own, netip.MustParseAddr(target), uint16(i+1)))
		fmt.Println("pinged", target)
	}
}

// address waits for the first IPv4 address that is ours.
func address(ctx context.Context, conn *connectip.Conn) (netip.Addr, error) {
	for {
		assigned, err := conn.ReceiveAddressAssignment(ctx)
		if err != nil {
			return netip.Addr{}, err
		}
		for _, a := range assigned {
			if a.IPPrefix.Addr().Is4() && !a.IPPrefix.Addr().IsUnspecified() {
				return a.IPPrefix.Addr(), nil
			}
		}
	}
}

// ping sends an echo request every second until its reply comes.
func ping(ctx context.Context, conn *connectip.Conn, from, to netip.Addr, seq uint16) error {
	replies := make(chan error, 1)
	go func() {
		buffer := make([]byte, 2000)
		for {
			n, err := conn.ReadPacket(buffer)
			if err != nil {
				replies <- err
				return
			}
			p := buffer[:n]
			if n >= headerLength+8 && p[9] == 1 && p[20] == 0 && netip.AddrFrom4([4]byte(p[12:16])) == to && binary.BigEndian.Uint16(p[26:]) == seq {
				replies <- nil
				return
			}
		}
	}()
	for range 4 {
		if _, err := conn.WritePacket(echo(from, to, seq)); err != nil {
			return err
		}
		select {
		case err := <-replies:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
	return errors.New("no reply")
}

// echo is an ICMP echo request (RFC 792) in IPv4 (RFC 791).
func echo(from, to netip.Addr, seq uint16) []byte {
	p := make([]byte, headerLength+8+56)
	p[0], p[8], p[9] = 0x45, 64, 1
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	copy(p[12:], from.AsSlice())
	copy(p[16:], to.AsSlice())
	binary.BigEndian.PutUint16(p[10:], checksum(p[:headerLength]))
	icmp := p[headerLength:]
	icmp[0] = 8
	binary.BigEndian.PutUint16(icmp[4:], 4711)
	binary.BigEndian.PutUint16(icmp[6:], seq)
	binary.BigEndian.PutUint16(icmp[2:], checksum(icmp))
	return p
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func check(what string, err error) {
	if err != nil {
		log.Fatalf("%s: %v", what, err)
	}
}
