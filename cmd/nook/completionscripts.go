package main

func completionScripts() map[string]string {
	return map[string]string{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion}
}

// bash gives the words cut at : and = too (COMP_WORDBREAKS), which are parts
// of names here: so the line is split again, and what bash keeps is cut off of
// the answers.
const bashCompletion = `# bash completion for nook: source <(nook completion bash)
_nook() {
    local line=${COMP_LINE:0:COMP_POINT} word kept="" breaks="" files=""
    local -a words=()
    read -ra words <<<"$line"
    if [[ $line == *[[:blank:]] ]]; then
        words+=("")
    fi
    local cur=${words[-1]}
    for word in : =; do
        if [[ $COMP_WORDBREAKS == *"$word"* ]]; then
            breaks+=$word
        fi
    done
    if [[ -n $breaks && $cur == *[$breaks]* ]]; then
        kept=${cur%"${cur##*[$breaks]}"}
    fi
    COMPREPLY=()
    while IFS= read -r word; do
        case $word in
        :files) files=yes ;;
        :nospace) compopt -o nospace ;;
        *) COMPREPLY+=("${word#"$kept"}") ;;
        esac
    done < <("$1" __complete -- "${words[@]:1}" 2>/dev/null)
    if [[ -n $files ]]; then
        compopt -o filenames
        while IFS= read -r word; do
            COMPREPLY+=("$word")
        done < <(compgen -f -- "${cur#"$kept"}")
    fi
}
complete -F _nook nook
`

const zshCompletion = `#compdef nook
# zsh completion for nook: source <(nook completion zsh), after compinit
_nook() {
    local line files="" nospace=""
    local -a found
    for line in "${(@f)$("${words[1]}" __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        case $line in
        "") ;;
        :files) files=yes ;;
        :nospace) nospace=yes ;;
        *) found+=("$line") ;;
        esac
    done
    if [[ -n $nospace ]]; then
        compadd -S "" -a found
    else
        compadd -a found
    fi
    if [[ -n $files ]]; then
        _files
    fi
}
if [ "$funcstack[1]" = "_nook" ]; then
    _nook "$@"
else
    compdef _nook nook
fi
`

const fishCompletion = `# fish completion for nook: nook completion fish >~/.config/fish/completions/nook.fish
function __nook_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    for line in ($words[1] __complete -- $words[2..-1] "$current" 2>/dev/null)
        switch $line
            case :files
                __fish_complete_path $current
            case :nospace
            case '*'
                echo $line
        end
    end
end
complete -c nook -f -a '(__nook_complete)'
`
