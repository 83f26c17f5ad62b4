"""Jinja chat templates that authors publish with their models, by the name of our template.

Source: `chat_template` of the models named beside each text. One that differs by a few characters
is still recognised, see `detect`.
"""

CHAT_TEMPLATES: dict[str, tuple[str, ...]] = {
    "alfred": (
        # Alfred 40B 1023
        "{% for message in messages %}{% if message['role'] == 'user' %}{{ '<start_user>' + "
        "message['content'].strip() + '<end_message>' }}{% elif message['role'] == 'system' %}"
        "{{ '<start_system>' + message['content'].strip() + '<end_message>' }}{% elif "
        "message['role'] == 'assistant' %}{{ '<start_assistant>' + message['content'].strip() "
        "+ '<end_message>' }}{% else %}{{ raise_exception('Only system, user and assistant "
        "roles are supported!') }}{% endif %}{% if loop.last and add_generation_prompt %}{{ "
        "'<start_assistant>' }}{% endif %}{% endfor %}",
    ),
    "alpaca": (
        # DeepSeek Coder Instruct
        "{% if not add_generation_prompt is defined %}\n"
        "{% set add_generation_prompt = false %}\n{% endif %}\n"
        "{%- set ns = namespace(found=false) -%}\n{%- for message in messages -%}\n"
        "    {%- if message['role'] == 'system' -%}\n        {%- set ns.found = true -%}\n"
        "    {%- endif -%}\n{%- endfor -%}\n{{bos_token}}{%- if not ns.found -%}\n"
        "{{'You are an AI programming assistant, utilizing the Deepseek Coder model, developed "
        "by Deepseek Company, and you only answer questions related to computer science. For "
        "politically sensitive questions, security and privacy issues, and other non-computer "
        "science questions, you will refuse to answer\\n'}}\n{%- endif %}\n"
        "{%- for message in messages %}\n    {%- if message['role'] == 'system' %}\n"
        "{{ message['content'] }}\n    {%- else %}\n"
        "        {%- if message['role'] == 'user' %}\n"
        "{{'### Instruction:\\n' + message['content'] + '\\n'}}\n        {%- else %}\n"
        "{{'### Response:\\n' + message['content'] + '\\n<|EOT|>\\n'}}\n        {%- endif %}\n"
        "    {%- endif %}\n{%- endfor %}\n{% if add_generation_prompt %}\n{{'### Response:'}}\n"
        "{% endif %}",
    ),
    "chatml": (
        # OpenHermes 2.5, Dolphin and others
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n"
        "' + message['content'] + '<|im_end|>' + '\n"
        "'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n"
        "' }}{% endif %}",
        # Nous Hermes 2
        "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}"
        "{% endif %}{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n"
        "' + message['content'] + '<|im_end|>' + '\n"
        "'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n"
        "' }}{% endif %}",
        # Qwen 1.5
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n"
        "' + message['content'] + '<|im_end|>' + '\n"
        "'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n"
        "' }}{% endif %}",
        # with a default system prompt
        "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set "
        "system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
        "{% set system_message = 'You are a helpful assistant.' %}{% endif %}{% if not "
        "add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
        "{% for message in loop_messages %}{% if loop.index0 == 0 %}{{'<|im_start|>system\n"
        "' + system_message + '<|im_end|>\n"
        "'}}{% endif %}{{'<|im_start|>' + message['role'] + '\n"
        "' + message['content'] + '<|im_end|>' + '\n"
        "'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n"
        "' }}{% endif %}",
        # InternLM 2
        "{{ bos_token }}{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n"
        "' + message['content'] + '<|im_end|>' + '\n"
        "'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n"
        "' }}{% endif %}",
        # Yi 1.5
        "{% if messages[0]['role'] == 'system' %}{% set system_message = "
        "messages[0]['content'] %}{% endif %}{% if system_message is defined %}{{ "
        "system_message }}{% endif %}{% for message in messages %}{% set content = "
        "message['content'] %}{% if message['role'] == 'user' %}{{ '<|im_start|>user\n"
        "' + content + '<|im_end|>\n<|im_start|>assistant\n"
        "' }}{% elif message['role'] == 'assistant' %}{{ content + '<|im_end|>' + '\n"
        "' }}{% endif %}{% endfor %}",
        # one line per clause
        "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
        "{{ '<|im_start|>user\n' + message['content'] + '<|im_end|>' }}\n"
        "{% elif message['role'] == 'system' %}\n{{ '<|im_start|>system\n"
        "' + message['content'] + '<|im_end|>' }}\n{% elif message['role'] == 'assistant' %}\n"
        "{{ '<|im_start|>assistant\n'  + message['content'] + '<|im_end|>' }}\n{% endif %}\n"
        "{% if loop.last and add_generation_prompt %}\n{{ '<|im_start|>assistant' }}\n"
        "{% endif %}\n{% endfor %}",
    ),
    "codellama-70b-instruct": (
        # Code Llama 70B Instruct
        "{% if messages[0]['role'] == 'system' %}{% set user_index = 1 %}{% else %}{% set "
        "user_index = 0 %}{% endif %}{% for message in messages %}{% if (message['role'] == "
        "'user') != ((loop.index0 + user_index) % 2 == 0) %}{{ raise_exception('Conversation "
        "roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if "
        "loop.index0 == 0 %}{{ '<s>' }}{% endif %}{% set content = 'Source: ' + "
        "message['role'] + '\n\n"
        " ' + message['content'].strip() %}{{ content + ' <step> ' }}{% endfor %}{{'Source: "
        "assistant\nDestination: user\n\n '}}",
    ),
    "command-r": (
        # Command R
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set loop_messages = "
        "messages[1:] %}{% set system_message = messages[0]['content'] %}{% elif false == true "
        "%}{% set loop_messages = messages %}{% set system_message = 'You are Command-R, a "
        "brilliant, sophisticated, AI-assistant trained to assist human users by providing "
        "thorough responses. You are trained by Cohere.' %}{% else %}{% set loop_messages = "
        "messages %}{% set system_message = false %}{% endif %}{% if system_message != false %}"
        "{{ '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>' + system_message + "
        "'<|END_OF_TURN_TOKEN|>' }}{% endif %}{% for message in loop_messages %}{% if "
        "(message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ "
        "raise_exception('Conversation roles must alternate "
        "user/assistant/user/assistant/...') }}{% endif %}{% set content = message['content'] "
        "%}{% if message['role'] == 'user' %}{{ '<|START_OF_TURN_TOKEN|><|USER_TOKEN|>' + "
        "content.strip() + '<|END_OF_TURN_TOKEN|>' }}{% elif message['role'] == 'assistant' %}"
        "{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>'  + content.strip() + "
        "'<|END_OF_TURN_TOKEN|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ "
        "'<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}",
    ),
    "falcon-instruct": (
        # Falcon Instruct
        "{% for message in messages %}{% if not loop.first %}{{ '\n"
        "' }}{% endif %}{% if message['role'] == 'system' %}{{ 'System: ' }}{% elif "
        "message['role'] == 'user' %}{{ 'User: ' }}{% elif message['role'] == 'assistant' %}{{ "
        "'Falcon: ' }}{% endif %}{{ message['content'] }}{% endfor %}{% if "
        "add_generation_prompt %}{{ '\n' + 'Falcon:' }}{% endif %}",
        # Falcon 2
        "{% for message in messages %}{% if message['role'] == 'user' %}{{ 'User: \n"
        "' + message['content'] }}{% elif message['role'] == 'system' %}{{ 'System: ' + "
        "message['content'] }}{% elif message['role'] == 'assistant' %}{{ 'Falcon:\n"
        "' + message['content']}}{% endif %}{% if loop.last and add_generation_prompt %}{{ '\n"
        "' + 'Falcon:' }}{% endif %}{% endfor %}",
    ),
    "gemma-instruct": (
        # Gemma
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System "
        "role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] "
        "== 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must "
        "alternate user/assistant/user/assistant/...') }}{% endif %}{% if (message['role'] == "
        "'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% "
        "endif %}{{ '<start_of_turn>' + role + '\n"
        "' + message['content'] | trim + '<end_of_turn>\n"
        "' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}",
    ),
    "gemma3-instruct": (
        # Gemma 3
        "{{ bos_token }}\n{%- if messages[0]['role'] == 'system' -%}\n"
        "    {%- if messages[0]['content'] is string -%}\n"
        "        {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}\n"
        "    {%- else -%}\n"
        "        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\n\n' -%}\n"
        "    {%- endif -%}\n    {%- set loop_messages = messages[1:] -%}\n{%- else -%}\n"
        '    {%- set first_user_prefix = "" -%}\n    {%- set loop_messages = messages -%}\n'
        "{%- endif -%}\n{%- for message in loop_messages -%}\n"
        "    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}\n"
        '        {{ raise_exception("Conversation roles must alternate '
        'user/assistant/user/assistant/...") }}\n    {%- endif -%}\n'
        "    {%- if (message['role'] == 'assistant') -%}\n"
        '        {%- set role = "model" -%}\n    {%- else -%}\n'
        "        {%- set role = message['role'] -%}\n    {%- endif -%}\n"
        "    {{ '<start_of_turn>' + role + '\n"
        '\' + (first_user_prefix if loop.first else "") }}\n'
        "    {%- if message['content'] is string -%}\n        {{ message['content'] | trim }}\n"
        "    {%- elif message['content'] is iterable -%}\n"
        "        {%- for item in message['content'] -%}\n"
        "            {%- if item['type'] == 'image' -%}\n"
        "                {{ '<start_of_image>' }}\n"
        "            {%- elif item['type'] == 'text' -%}\n"
        "                {{ item['text'] | trim }}\n            {%- endif -%}\n"
        "        {%- endfor -%}\n    {%- else -%}\n"
        '        {{ raise_exception("Invalid content type") }}\n    {%- endif -%}\n'
        "    {{ '<end_of_turn>\n' }}\n{%- endfor -%}\n{%- if add_generation_prompt -%}\n"
        "    {{'<start_of_turn>model\n'}}\n{%- endif -%}\n",
    ),
    "granite-instruct": (
        # Granite Code Instruct
        "{% for message in messages %}{% if message['role'] == 'user' %}{{ 'Question:\n"
        "' + message['content'] + '\n\n' }}{% elif message['role'] == 'system' %}{{ 'System:\n"
        "' + message['content'] + '\n\n"
        "' }}{% elif message['role'] == 'assistant' %}{{ 'Answer:\n"
        "'  + message['content'] + '\n\n"
        "' }}{% endif %}{% if loop.last and add_generation_prompt %}{{ 'Answer:\n"
        "' }}{% endif %}{% endfor %}",
    ),
    "llama2-chat": (
        # Llama 2 Chat
        "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set "
        "system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
        "{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if "
        "(message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ "
        "raise_exception('Conversation roles must alternate "
        "user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and "
        "system_message != false %}{% set content = '<<SYS>>\\n' + system_message + "
        "'\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = "
        "message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + "
        "'[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
        "{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
    ),
    "llama3-instruct": (
        # Llama 3
        "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = "
        "'<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n"
        "'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content "
        "= bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if "
        "add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n"
        "' }}{% endif %}",
        # Llama 3.1
        "{{- bos_token }}\n{%- if custom_tools is defined %}\n"
        "    {%- set tools = custom_tools %}\n{%- endif %}\n"
        "{%- if not tools_in_user_message is defined %}\n"
        "    {%- set tools_in_user_message = true %}\n{%- endif %}\n"
        '{%- if not date_string is defined %}\n    {%- set date_string = "26 Jul 2024" %}\n'
        "{%- endif %}\n{%- if not tools is defined %}\n    {%- set tools = none %}\n"
        "{%- endif %}\n\n"
        "{#- This block extracts the system message, so we can slot it into the right place. "
        "#}\n{%- if messages[0]['role'] == 'system' %}\n"
        "    {%- set system_message = messages[0]['content']|trim %}\n"
        "    {%- set messages = messages[1:] %}\n{%- else %}\n"
        '    {%- set system_message = "" %}\n{%- endif %}\n\n'
        "{#- System message + builtin tools #}\n"
        '{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}\n'
        "{%- if builtin_tools is defined or tools is not none %}\n"
        '    {{- "Environment: ipython\\n" }}\n{%- endif %}\n'
        "{%- if builtin_tools is defined %}\n"
        "    {{- \"Tools: \" + builtin_tools | reject('equalto', 'code_interpreter') | "
        'join(", ") + "\\n\\n"}}\n{%- endif %}\n'
        '{{- "Cutting Knowledge Date: December 2023\\n" }}\n'
        '{{- "Today Date: " + date_string + "\\n\\n" }}\n'
        "{%- if tools is not none and not tools_in_user_message %}\n"
        '    {{- "You have access to the following functions. To call a function, please '
        'respond with JSON for a function call." }}\n'
        '    {{- \'Respond in the format {"name": function name, "parameters": dictionary '
        'of argument name and its value}.\' }}\n    {{- "Do not use variables.\\n\\n" }}\n'
        "    {%- for t in tools %}\n        {{- t | tojson(indent=4) }}\n"
        '        {{- "\\n\\n" }}\n    {%- endfor %}\n{%- endif %}\n{{- system_message }}\n'
        '{{- "<|eot_id|>" }}\n\n'
        "{#- Custom tools are passed in a user message with some extra guidance #}\n"
        "{%- if tools_in_user_message and not tools is none %}\n"
        "    {#- Extract the first user message so we can plug it in here #}\n"
        "    {%- if messages | length != 0 %}\n"
        "        {%- set first_user_message = messages[0]['content']|trim %}\n"
        "        {%- set messages = messages[1:] %}\n    {%- else %}\n"
        "        {{- raise_exception(\"Cannot put tools in the first user message when there's "
        'no first user message!") }}\n{%- endif %}\n'
        "    {{- '<|start_header_id|>user<|end_header_id|>\\n\\n' -}}\n"
        '    {{- "Given the following functions, please respond with a JSON for a function '
        'call " }}\n'
        '    {{- "with its proper arguments that best answers the given prompt.\\n\\n" }}\n'
        '    {{- \'Respond in the format {"name": function name, "parameters": dictionary '
        'of argument name and its value}.\' }}\n    {{- "Do not use variables.\\n\\n" }}\n'
        "    {%- for t in tools %}\n        {{- t | tojson(indent=4) }}\n"
        '        {{- "\\n\\n" }}\n    {%- endfor %}\n'
        '    {{- first_user_message + "<|eot_id|>"}}\n{%- endif %}\n\n'
        "{%- for message in messages %}\n"
        "    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' "
        "in message) %}\n"
        "        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ "
        "message['content'] | trim + '<|eot_id|>' }}\n    {%- elif 'tool_calls' in message %}\n"
        "        {%- if not message.tool_calls|length == 1 %}\n"
        '            {{- raise_exception("This model only supports single tool-calls at '
        'once!") }}\n        {%- endif %}\n'
        "        {%- set tool_call = message.tool_calls[0].function %}\n"
        "        {%- if builtin_tools is defined and tool_call.name in builtin_tools %}\n"
        "            {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}\n"
        '            {{- "<|python_tag|>" + tool_call.name + ".call(" }}\n'
        "            {%- for arg_name, arg_val in tool_call.arguments | items %}\n"
        "                {{- arg_name + '=\"' + arg_val + '\"' }}\n"
        '                {%- if not loop.last %}\n                    {{- ", " }}\n'
        "                {%- endif %}\n                {%- endfor %}\n"
        '            {{- ")" }}\n        {%- else  %}\n'
        "            {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}\n"
        "            {{- '{\"name\": \"' + tool_call.name + '\", ' }}\n"
        "            {{- '\"parameters\": ' }}\n"
        '            {{- tool_call.arguments | tojson }}\n            {{- "}" }}\n'
        "        {%- endif %}\n        {%- if builtin_tools is defined %}\n"
        "            {#- This means we're in ipython mode #}\n"
        '            {{- "<|eom_id|>" }}\n        {%- else %}\n'
        '            {{- "<|eot_id|>" }}\n        {%- endif %}\n'
        '    {%- elif message.role == "tool" or message.role == "ipython" %}\n'
        '        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}\n'
        "        {%- if message.content is mapping or message.content is iterable %}\n"
        "            {{- message.content | tojson }}\n        {%- else %}\n"
        "            {{- message.content }}\n        {%- endif %}\n"
        '        {{- "<|eot_id|>" }}\n    {%- endif %}\n{%- endfor %}\n'
        "{%- if add_generation_prompt %}\n"
        "    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}\n{%- endif %}\n",
    ),
    "magicoder": (
        # Magicoder S
        "{{bos_token}}{{'You are an exceptionally intelligent coding assistant that "
        "consistently delivers accurate and reliable responses to user instructions.\n\n'}}\n"
        "{%- for message in messages %}\n    {%- if message['role'] == 'system' %}\n"
        "{{ raise_exception('System messages are not allowed in this template.') }}\n"
        "    {%- else %}\n        {%- if message['role'] == 'user' %}\n{{'@@ Instruction\n"
        "' + message['content'] + '\n\n'}}\n        {%- else %}\n{{'@@ Response\n"
        "' + message['content'] + eos_token + '\n\n'}}\n        {%- endif %}\n"
        "    {%- endif %}\n{%- endfor %}\n{{'@@ Response\n'}}",
    ),
    "mistral-instruct": (
        # Mistral 7B Instruct 0.2, Mixtral
        "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != "
        "(loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate "
        "user/assistant/user/assistant/...') }}{% endif %}{% if message['role'] == 'user' %}{{ "
        "'[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' "
        "%}{{ message['content'] + eos_token}}{% else %}{{ raise_exception('Only user and "
        "assistant roles are supported!') }}{% endif %}{% endfor %}",
        # Mistral 7B Instruct 0.1
        "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != "
        "(loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate "
        "user/assistant/user/assistant/...') }}{% endif %}{% if message['role'] == 'user' %}{{ "
        "'[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' "
        "%}{{ message['content'] + eos_token + ' ' }}{% else %}{{ raise_exception('Only user "
        "and assistant roles are supported!') }}{% endif %}{% endfor %}",
    ),
    "openchat": (
        # OpenChat 3.5
        "{{ bos_token }}{% for message in messages %}{{ 'GPT4 Correct ' + "
        "message['role'].title() + ': ' + message['content'] + '<|end_of_turn|>'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'GPT4 Correct Assistant:' }}{% endif %}",
    ),
    "phi-3": (
        # Phi 3 with roles as they come
        "{{ bos_token }}{% for message in messages %}{{'<|' + message['role'] + '|>' + '\n"
        "' + message['content'] + '<|end|>\n"
        "' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n"
        "' }}{% else %}{{ eos_token }}{% endif %}",
        # Phi 3
        "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') %}"
        "{{'<|user|>' + '\n' + message['content'] + '<|end|>' + '\n' + '<|assistant|>' + '\n"
        "'}}{% elif (message['role'] == 'assistant') %}{{message['content'] + '<|end|>' + '\n"
        "'}}{% endif %}{% endfor %}",
        # Phi 3 without a start
        "{% for message in messages %}{% if (message['role'] == 'user') %}{{'<|user|>' + '\n"
        "' + message['content'] + '<|end|>' + '\n' + '<|assistant|>' + '\n"
        "'}}{% elif (message['role'] == 'assistant') %}{{message['content'] + '<|end|>' + '\n"
        "'}}{% endif %}{% endfor %}",
    ),
    "solar-instruct": (
        # SOLAR 10.7B Instruct
        "{% for message in messages %}{% if message['role'] == 'system' %}{% if "
        "message['content']%}{{'### System:\n' + message['content']+'\n\n"
        "'}}{% endif %}{% elif message['role'] == 'user' %}{{'### User:\n"
        "' + message['content']+'\n\n"
        "'}}{% elif message['role'] == 'assistant' %}{{'### Assistant:\n"
        "'  + message['content']}}{% endif %}{% if loop.last and add_generation_prompt %}{{ "
        "'### Assistant:\n' }}{% endif %}{% endfor %}",
    ),
    "starcoder2-instruct": (
        # StarCoder2 Instruct
        "{{bos_token}}{{'You are an exceptionally intelligent coding assistant that "
        "consistently delivers accurate and reliable responses to user instructions.\n\n'}}\n"
        "{%- for message in messages %}\n    {%- if message['role'] == 'system' %}\n"
        "{{ raise_exception('System messages are not allowed in this template.') }}\n"
        "    {%- else %}\n        {%- if message['role'] == 'user' %}\n{{'### Instruction\n"
        "' + message['content'] + '\n\n'}}\n        {%- else %}\n{{'### Response\n"
        "' + message['content'] + eos_token + '\n\n'}}\n        {%- endif %}\n"
        "    {%- endif %}\n{%- endfor %}\n{{'### Response\n'}}",
    ),
    "zephyr": (
        # Zephyr beta, TinyLlama chat
        "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n"
        "' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n"
        "{{ '<|system|>\n' + message['content'] + eos_token }}\n"
        "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n"
        "'  + message['content'] + eos_token }}\n{% endif %}\n"
        "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n"
        "{% endfor %}",
    ),
}
