//! The starter set's rules. A score of [`SURE`] is enough by itself with the default threshold; what ordinary text may also
//! say scores less, and counts only together with something else.
//!
//! `\x01` stands between texts that do not belong together.

/// What a rule looks at: the path, the query, cookies, `User-Agent`, other fields.
pub const PATH: u8 = 1;
pub const QUERY: u8 = 2;
pub const COOKIES: u8 = 4;
pub const AGENT: u8 = 8;
pub const FIELDS: u8 = 16;
const VALUES: u8 = QUERY | COOKIES;
const ANY: u8 = PATH | QUERY | COOKIES | AGENT | FIELDS;

/// Enough by itself.
pub const SURE: u32 = 5;
const LIKELY: u32 = 4;
const HINT: u32 = 3;

#[derive(Debug)]
pub struct Rule {
    /// `GROUP-NAME`.
    pub name: &'static str,
    pub score: u32,
    pub targets: u8,
    pub pattern: &'static str,
}

impl Rule {
    /// `sql`, `xss`, `path`, `command` or `scanner`.
    pub fn group(&self) -> &'static str {
        self.name.split('-').next().unwrap_or(self.name)
    }
}

const fn rule(name: &'static str, score: u32, targets: u8, pattern: &'static str) -> Rule {
    Rule { name, score, targets, pattern }
}

/// At most 64.
pub static RULES: &[Rule] = &[
    // === SQL injection ===
    rule(
        "sql-union",
        SURE,
        VALUES | PATH,
        r#"\bunion[\s(]+((all|distinct)[\s(]+)?select[\s(]+([\d'"@*(]|null\b|[\w.]+\s*[,(]|[^\x01]*\bfrom\b)"#,
    ),
    rule(
        "sql-tautology",
        SURE,
        VALUES | PATH,
        r#"['"]\s*\)*\s*(\bor\b|\band\b|\bxor\b|\|\||&&)[\s(]*(not\s+)?['"]?[\w.]+['"]?\s*(=|<>|!=|<|>|\blike\b|\brlike\b|\bin\s*\()"#,
    ),
    rule("sql-number", SURE, VALUES | PATH, r"\b\d+[')]*\s+(or|and|xor)[\s(]+(not\s+)?\d+\s*(=|<|>|like\b)\s*\(?\d"),
    rule("sql-comment", SURE, VALUES, r"[\w]'\s*\)*\s*(--\s*(\x01|$)|--\s|#\s*(\x01|$)|/\*|;\s*--)"),
    rule(
        "sql-stacked",
        SURE,
        VALUES | PATH,
        r"['\d)]?\s*;\s*(drop\s+(table|database|schema|user|view)\b|insert\s+into\b|delete\s+from\b|update\s+\w+\s+set\b|alter\s+(table|user)\b|create\s+(table|user|database)\b|truncate\s+table\b|exec(ute)?[\s(]+(master|xp_|sp_|immediate)|shutdown\s*(--|;|\x01|$)|waitfor\s+delay\b|select\s+(\*|[\w@.(]+)\s*(from|\())",
    ),
    rule(
        "sql-select",
        HINT,
        VALUES | PATH,
        r"\bselect\b[^\x01;]+\bfrom\b[\s(]+\w+[^\x01;]*\b(where|limit|order\s+by|group\s+by|having)\b",
    ),
    rule("sql-subselect", SURE, VALUES | PATH, r"[=,(<>]\s*\(\s*select\b[^\x01]+\bfrom\b"),
    rule(
        "sql-catalogue",
        SURE,
        VALUES | PATH,
        r"\b(information_schema\s*\.|sqlite_master\b|sqlite_schema\b|pg_catalog\s*\.|pg_shadow\b|sysobjects\b|mysql\s*\.\s*user\b|xp_cmdshell\b|sp_executesql\b|all_tables\s+where|user_tables\s+where)",
    ),
    rule(
        "sql-function",
        SURE,
        VALUES | PATH,
        r"\b(pg_sleep|benchmark|randomblob)\s*\(\s*\d|\b(extractvalue|updatexml|load_file|dbms_pipe\s*\.\s*receive_message|utl_inaddr\s*\.\s*get_host_address|utl_http\s*\.\s*request)\s*\(\s*['\w(]",
    ),
    rule("sql-sleep", SURE, VALUES | PATH, r"(\bor\b|\band\b|\bselect\b|\bif\s*\(|['),;|*/-])[\s(]*sleep\s*\(\s*\d"),
    rule("sql-outfile", SURE, VALUES | PATH, r"\binto\s+(outfile|dumpfile)\s+['\x22]"),
    rule(
        "sql-probe",
        SURE,
        VALUES | PATH,
        r"['\d)]\s*\)*\s*(order|group)\s+by\s+\d+\s*(,\s*\d+\s*)*(--|#|/\*)|\bhaving\s+\d+\s*=\s*\d+",
    ),
    // === cross-site scripting ===
    rule("xss-script", SURE, VALUES | PATH, r"<\s*/?\s*script[\s/>\x01]"),
    rule("xss-handler", SURE, VALUES | PATH, r#"<[a-z!/?][^<>]*[\s"'/]on[a-z]{3,24}\s*="#),
    rule(
        "xss-attribute",
        SURE,
        VALUES | PATH,
        r#"['"][\s/]*on(error|load|click|mouse[a-z]+|focus[a-z]*|blur|key[a-z]+|toggle|pointer[a-z]+|animation[a-z]+|begin|wheel)\s*="#,
    ),
    rule("xss-uri", SURE, VALUES | PATH, r"\b(java|vb)\s*script\s*:[^\x01\s]*[(=`\[]|\bdata\s*:\s*text/html[;,]"),
    rule(
        "xss-element",
        SURE,
        VALUES | PATH,
        r"<\s*(iframe|object|embed|applet|base|meta|frameset|frame|portal)\b[^<>]*(\s|/)(src|srcdoc|href|data|code|content|http-equiv)\s*=",
    ),
    rule(
        "xss-markup",
        HINT,
        VALUES | PATH,
        r"<\s*(img|svg|math|form|link|style|video|audio|input|body|details|marquee|a)\b[^<>]*(\s|/)(src|href|action|xlink:href|style|formaction)\s*=",
    ),
    rule(
        "xss-dom",
        HINT,
        VALUES | PATH,
        r"\b(document\s*\.\s*(cookie|write(ln)?|location|domain)|window\s*\.\s*location|string\s*\.\s*fromcharcode|\.\s*innerhtml\s*=|(alert|prompt|confirm|eval|settimeout)\s*\(\s*['`\d\w])",
    ),
    rule("xss-break", LIKELY, VALUES | PATH, r#"['"]\s*/?>\s*<[a-z!/]"#),
    // === path traversal and files nobody should see ===
    rule("path-climb", SURE, VALUES | PATH, r"(^|[/\\=\x01])\.\.[/\\]+\.\.([/\\]|\x01|$)"),
    rule("path-step", HINT, VALUES | PATH, r"(^|[/\\=\x01])\.\.[/\\]"),
    rule(
        "path-system",
        SURE,
        VALUES | PATH | FIELDS,
        r"[/\\]+(etc[/\\]+(passwd|shadow|gshadow|sudoers)\b|proc[/\\]+(self|\d+)[/\\]|windows[/\\]+(system32|win\.ini)|winnt[/\\]|boot\.ini\b|var[/\\]+run[/\\]+secrets[/\\])",
    ),
    rule(
        "path-hidden",
        SURE,
        PATH,
        r"/\.(git|svn|hg|bzr|env|aws|ssh|kube|docker|htaccess|htpasswd|bash_history|mysql_history|npmrc|pgpass)(/|\.|$)",
    ),
    rule(
        "path-wrapper",
        SURE,
        VALUES,
        r"\b(php://(filter|input|memory|temp)|phar://|expect://|gopher://|dict://|jar:http|netdoc://|file:///(etc|proc|c:|windows))",
    ),
    rule("path-overlong", SURE, VALUES | PATH, r"\xc0[\xae\xaf\x2f\x5c]|\xc1[\x1c\x9c]|\xe0\x80[\xae\xaf]"),
    rule("path-zero", SURE, VALUES | PATH, r"\x00"),
    // === command and code injection ===
    rule(
        "command-chain",
        SURE,
        VALUES | PATH,
        r#"(;|\|\|?|&&|`)\s*(/(usr/)?bin/)?(cat|ls|dir|id|whoami|uname|pwd|wget|curl|nc|ncat|netcat|telnet|bash|sh|zsh|dash|python[23]?|perl|ruby|php|node|powershell|cmd|ping|nslookup|dig|rm|mv|cp|chmod|chown|touch|echo|printf|sleep|kill|ps|netstat|ifconfig|ip|env|printenv|tee|head|tail|base64|xxd|awk|sed|find|mkfifo|crontab|systeminfo|ipconfig|type)(\.exe)?(\s+([-/$~<>"'.\d\\]|https?:|ftp:)[^\s\x01]*|\$ifs)|(;|\|\|?|&&|`)(/(usr/)?bin/)?(id|ls|dir|whoami|uname|pwd|env|printenv|ps|ifconfig|ipconfig|netstat|systeminfo)\s*([;|&`\x01]|$)"#,
    ),
    rule(
        "command-substitution",
        SURE,
        VALUES | PATH | AGENT | FIELDS,
        r"\$\(\s*(/(usr/)?bin/)?(cat|ls|id|whoami|uname|pwd|wget|curl|nc|bash|sh|python[23]?|perl|ping|nslookup|dig|echo|sleep|env|printenv|base64)\b",
    ),
    rule(
        "command-shell",
        LIKELY,
        VALUES | PATH | AGENT | FIELDS,
        r"/bin/(ba|da|z|c|k)?sh\s+-|/dev/(tcp|udp)/[\w.]|\$\{?ifs\b|\bmkfifo\s+/tmp/",
    ),
    rule("command-shellshock", SURE, ANY, r"\(\)\s*\{\s*[^}\x01]*[;:][^\x01]*\}\s*;"),
    rule(
        "command-lookup",
        SURE,
        ANY,
        r"\$\{[^}\x01]*jndi\s*:|\$\{[^}\x01]*j\}?\$\{|\$\{\s*(lower|upper|env|sys|date|main|::)\s*:?[^}\x01]*:?-?[jndi]\s*\}",
    ),
    rule(
        "command-windows",
        SURE,
        VALUES | PATH,
        r"\bcmd(\.exe)?\s+/[ck]\s|\bpowershell(\.exe)?\s+(-\w+\s+)*-(e|ec|enc|encodedcommand|c|command|nop|noprofile|w|windowstyle)\b",
    ),
    rule(
        "command-php",
        SURE,
        VALUES | PATH,
        r"<\?(php\b|=)|\b(system|passthru|shell_exec|popen|proc_open|assert)\s*\(\s*(\$_(get|post|request|cookie|server)|base64_decode|['\x22](id|ls|cat|whoami|uname|wget|curl)\b)|auto_prepend_file\s*=",
    ),
    rule(
        "command-java",
        SURE,
        VALUES | PATH | FIELDS,
        r"\bjava\.lang\.(runtime|processbuilder|system|class)\b|\bclass\.(module\.)?classloader\b|\bgetruntime\s*\(\s*\)\s*\.\s*exec\b|%\{\(?#",
    ),
    rule(
        "command-template",
        LIKELY,
        VALUES | PATH,
        r"(\{\{|\$\{|<%=|#\{)\s*\d+\s*\*\s*\d+\s*(\}|%>)|\{\{[^\x01]*(__class__|__globals__|constructor\.constructor|_self\.env)",
    ),
    rule("command-prototype", LIKELY, VALUES, r"(^|\x01|[\[.])(__proto__|constructor(\]|\.)\[?prototype)[\].\[]"),
    // === scanners ===
    rule(
        "scanner-agent",
        SURE,
        AGENT,
        r"\b(sqlmap|nikto|nessus|openvas|acunetix|netsparker|invicti|w3af|dirbuster|gobuster|feroxbuster|dirsearch|wfuzz|ffuf|fuzz faster|masscan|zgrab|nuclei|wpscan|whatweb|arachni|havij|jaeles|commix|fimap|skipfish|joomscan|paros|webinspect|nmap scripting engine|l9explore|l9tcpid|zmeu|morfeus)\b",
    ),
    rule(
        "scanner-path",
        HINT,
        PATH,
        r"(^|/)(wp-login\.php|wp-config\.php|xmlrpc\.php|phpmyadmin|adminer(-[\d.]+)?\.php|phpinfo\.php|info\.php|cgi-bin/|web\.config|id_rsa|actuator/(env|heapdump|gateway)|server-status|solr/admin|manager/html|hnap1|boaform|vendor/phpunit|_ignition/execute-solution|telescope/requests|eval-stdin\.php|shell\.php|\.vscode/|docker-compose\.ya?ml$)",
    ),
];
