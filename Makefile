# verdecmd: "make" alone says what there is.

SHELL := /bin/sh
export GOFLAGS := -trimpath
export VERDECMD_GUEST := $(CURDIR)/build/guest

VERSION = $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
TOOLS = $(CURDIR)/build/tools
SCRIPTS = $(shell grep -rlE '^\#!/bin/((ba|da)?sh|busybox sh)' packaging .ci docs testdata/quickstart)
FUZZTIME = 10s
SCALE = 1000 10000
FUZZ =
ARGS =
MINUTES = 60

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | \
		while IFS='|' read -r a b; do printf '%-16s %s\n' "$$a" "$$b"; done

.PHONY: demo
demo: ## a whole cluster with real desktops on this machine; ARGS="--detach --dir X" passes flags
	@packaging/setup/setup --need demo
	@$(MAKE) --no-print-directory -j2 build guest
	@bin/verdecmd demo --guest "$(VERDECMD_GUEST)" $(ARGS)

.PHONY: build
build: ## bin/verdecmd, one static program, and its other names
	@echo "build: bin/verdecmd $(VERSION) (the first time takes a minute or two)"
	@CGO_ENABLED=0 go build -ldflags "-s -w -X main.version=$(VERSION)" -o bin/verdecmd .
	@ln -sf verdecmd bin/verdecmon
	@ln -sf verdecmd bin/win4

.PHONY: install
install: build ## the program, its names, manual and systemd units, below DESTDIR
	@packaging/setup/install bin/verdecmd

.PHONY: uninstall
uninstall: ## take away what install has brought; settings, keys and database stay
	@packaging/setup/install --remove

.PHONY: guest
guest: ## build/guest, the tiny guest that the demo and the tests start
	@packaging/guest/build build/guest

.PHONY: test
test: ## everything that is checked, as continuous integration does
	@packaging/setup/setup --need test
	@$(MAKE) --no-print-directory -j2 build guest
	@$(MAKE) --no-print-directory check
	@cd packaging/tools && go test ./...
	@bin/verdecmd simulate --check --histories 2000 --seed 1
	@$(TOOLS)/testrun -race -timeout 18m ./...
	@$(TOOLS)/fuzzrun -time 10s -pick 2 -by "$$(git rev-parse HEAD 2>/dev/null || date +%j)"

.PHONY: check
check: tools ## format, vet, generated code, modules, shell scripts, units
	@out=$$(gofmt -l .); [ -z "$$out" ] || { echo "gofmt wants changes in: $$out"; exit 1; }
	CGO_ENABLED=0 go vet ./...
	CGO_ENABLED=0 go vet -tags mutants . ./proto/planted
	cd packaging/tools && go vet ./...
	go mod verify
	@rm -rf build/proto && mkdir -p build/proto && cp proto/*.proto build/proto
	@$(TOOLS)/protogen build/proto $(TOOLS)/protoc-gen-go $(TOOLS)/protoc-gen-go-grpc
	@for f in build/proto/*.go; do cmp -s "$$f" "proto/$${f##*/}" || \
		{ echo "proto/$${f##*/} is not what the .proto files say: run make proto"; exit 1; }; done
	shellcheck $(SCRIPTS)
	packaging/systemd/lint packaging/systemd

.PHONY: proto
proto: tools ## proto/*.pb.go from proto/*.proto
	@$(TOOLS)/protogen proto $(TOOLS)/protoc-gen-go $(TOOLS)/protoc-gen-go-grpc

.PHONY: man
man: ## manual pages, completion and docs/protocol.md, from the tables of commands and settings
	@go test -count=1 . -run '^TestGenerated$$' -update
	@go test -count=1 ./monitor -run '^TestProtocol' -update

.PHONY: picture
picture: ## docs/monitor.svg and docs/desktop.png, from a running demo
	@packaging/setup/setup --need test
	@$(MAKE) --no-print-directory -j2 build guest
	@packaging/picture/record docs/monitor.svg docs/desktop.png

.PHONY: tools
tools: # the programs that the other targets use
	@mkdir -p $(TOOLS)
	@cd packaging/tools && CGO_ENABLED=0 go build -o $(TOOLS)/ ./protogen ./testrun ./fuzzrun ./benchtable ./soak \
		google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc

.PHONY: bench
bench: ## the benchmarks, and from them docs/performance.md
	@packaging/setup/setup --need demo
	@$(MAKE) --no-print-directory build guest tools
	@{ go test -run '^$$' -bench '^Benchmark(Choose|Floor|Ping|Servers10k)$$' -benchmem -count 5 ./master/placement ./monitor; \
		go test -run '^$$' -bench '^BenchmarkCommit$$' -count 3 ./master/store; \
		go test -run '^$$' -bench '^BenchmarkOpen$$' -benchtime 5x ./master/store; \
		go test -run '^$$' -bench '^BenchmarkStart$$' -benchtime 15x ./satellite/desktop/qemu; \
		go test -run '^$$' -bench '^BenchmarkBoot$$' -benchtime 5x ./satellite/desktop/qemu; } | $(TOOLS)/benchtable docs/performance.md

.PHONY: scale
scale: build tools ## docs/scale.md: a real master under 1,000 and 10,000 simulated satellites (5 minutes, a quiet machine)
	@for n in $(SCALE); do \
		bin/verdecmd simulate --satellites $$n --sessions 20000 --seconds 15 --floor --json || exit 1; \
	done > build/scale.json
	@$(TOOLS)/benchtable -scale docs/scale.md < build/scale.json

.PHONY: fuzz
fuzz: tools ## each fuzz target for FUZZTIME (10s); FUZZ=REGEXP: those alone
	@$(TOOLS)/fuzzrun -time $(FUZZTIME) -run '$(FUZZ)'

.PHONY: mutants
mutants: ## plant bugs and see that the checkers find each; ARGS=-update writes docs/mutants.md (five minutes)
	@packaging/setup/setup --need test
	@$(MAKE) --no-print-directory build guest
	@go test -tags mutants -count=1 -timeout 3h -run '^TestMutants$$' -v . -args $(ARGS)

.PHONY: soak
soak: ## all that is better the longer it runs, for MINUTES (60) or until Ctrl-C; adds its counts to docs/soak.tsv
	@packaging/setup/setup --need test
	@$(MAKE) --no-print-directory build guest tools
	@$(TOOLS)/soak -minutes $(MINUTES) $(ARGS)

.PHONY: clean
clean: ## remove what was built; demos stay
	rm -rf bin build
