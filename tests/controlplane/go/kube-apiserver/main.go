// kube-apiserver, as its release builds it. k8s.io/kubernetes cannot be a `go install` target itself:
// its go.mod replaces the staging modules by folders, which Go refuses outside that repository.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() {
	os.Exit(cli.Run(app.NewAPIServerCommand()))
}
