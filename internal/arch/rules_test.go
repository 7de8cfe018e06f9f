package arch

import (
	"fmt"
	"go/ast"
	"slices"
	"strings"
)

const (
	maxLines            = 800
	maxMethods          = 12
	maxInterfaceMethods = 8
)

// meaningless are names that say nothing about what a package provides.
var meaningless = []string{"util", "utils", "common", "helper", "helpers", "types", "manager", "misc", "shared"}

// checkImports: imports point to lower layers.
func checkImports(p *goPackage) []string {
	if len(p.files) == 0 {
		return nil
	}
	if layerOf(p.path) < 0 && !matchAny(testOnly, p.path) {
		return []string{p.path + " is in no layer: add it to layers in internal/arch/layers_test.go"}
	}
	var out []string
	for _, imp := range p.imports() {
		to, ours := strings.CutPrefix(imp, module+"/")
		if ours && !mayImport(p.path, to) {
			out = append(out, fmt.Sprintf("%s (%s) must not import %s (%s): imports point to lower layers",
				p.path, layerName(p.path), to, layerName(to)))
		}
	}
	return out
}

func layerName(path string) string {
	if i := layerOf(path); i >= 0 {
		return layers[i].name
	}
	if matchAny(testOnly, path) {
		return "tests only"
	}
	return "no layer"
}

// checkPure: the three lowest layers do no I/O and read no clock, and the
// verifier has no network and no database.
func checkPure(p *goPackage) []string {
	layer := layerOf(p.path)
	pure := layer >= 0 && layer < pureLayers
	var banned []string
	switch {
	case pure:
		banned = impure
	case p.path == "verify":
		banned = offline
	}
	var out []string
	for _, imp := range p.imports() {
		if slices.Contains(banned, imp) {
			out = append(out, fmt.Sprintf("%s must not import %s: the same code has to give the same answer anywhere", p.path, imp))
		}
	}
	if !pure {
		return out
	}
	for _, f := range p.files {
		name := ""
		for _, spec := range f.ast.Imports {
			if importPath(spec) == "time" {
				name = "time"
				if spec.Name != nil {
					name = spec.Name.Name
				}
			}
		}
		if name == "" {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && clock[sel.Sel.Name] {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == name {
					out = append(out, fmt.Sprintf("%s uses time.%s: take the time as an argument", f.name, sel.Sel.Name))
				}
			}
			return true
		})
	}
	return out
}

// checkNames: a package says what it provides, in its name and its comment.
func checkNames(p *goPackage) []string {
	if len(p.files) == 0 {
		return nil
	}
	var out []string
	if slices.Contains(meaningless, p.name) {
		out = append(out, fmt.Sprintf("%s: package %s: name it after what it provides", p.path, p.name))
	}
	want := "Package " + p.name + " "
	if p.name == "main" {
		want = "Command " + p.path[strings.LastIndex(p.path, "/")+1:] + " "
	}
	for _, f := range p.files {
		// Doc.Text() joins no lines, so a name at the end of one is followed by \n.
		if strings.HasPrefix(strings.ReplaceAll(f.ast.Doc.Text(), "\n", " "), want) {
			return out
		}
	}
	return append(out, fmt.Sprintf("%s has no package comment that starts with %q", p.path, want))
}

// checkSizes: files, service types and interfaces stay small enough to read.
func checkSizes(p *goPackage) []string {
	var out []string
	for _, f := range slices.Concat(p.files, p.tests) {
		if f.lines > maxLines && !f.generated {
			out = append(out, fmt.Sprintf("%s has %d lines, at most %d: split it", f.name, f.lines, maxLines))
		}
	}
	methods := map[string]int{}
	interfaces := map[string]*ast.InterfaceType{}
	for _, f := range p.files {
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if r := receiver(d); ast.IsExported(r) && d.Name.IsExported() {
					methods[r]++
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					if t, ok := s.(*ast.TypeSpec); ok {
						if i, ok := t.Type.(*ast.InterfaceType); ok {
							interfaces[t.Name.Name] = i
						}
					}
				}
			}
		}
	}
	for name, n := range methods {
		if n > maxMethods {
			out = append(out, fmt.Sprintf("%s: type %s has %d exported methods, at most %d: it does more than one job", p.path, name, n, maxMethods))
		}
	}
	for name := range interfaces {
		if n := interfaceSize(interfaces, name, map[string]bool{}); n > maxInterfaceMethods {
			out = append(out, fmt.Sprintf("%s: interface %s has %d methods, at most %d", p.path, name, n, maxInterfaceMethods))
		}
	}
	slices.Sort(out)
	return out
}

// interfaceSize counts the methods of the named interface and of those of the
// same package that it embeds.
func interfaceSize(all map[string]*ast.InterfaceType, name string, seen map[string]bool) int {
	i, ok := all[name]
	if !ok || seen[name] {
		return 0
	}
	seen[name] = true
	n := 0
	for _, m := range i.Methods.List {
		n += len(m.Names)
		if id, ok := m.Type.(*ast.Ident); ok && len(m.Names) == 0 {
			n += interfaceSize(all, id.Name, seen)
		}
	}
	return n
}
