"""What looks at whole systems.

Judging   the judges of a run in turn                  (`workbench.judging`)
Report    sounds, pictures and tables as one page      (`workbench.report`)
Parity    ours against PyTorch, place by place         (`workbench.parity`)
          what passes through our models               (`workbench.activations`)
          one kind of model: inputs, places, a control (`workbench.comparable`, `workbench.comparables`)
          the kinds                                    (`workbench.comparable_decoder`, `workbench.comparable_ssl`,
                                                        `workbench.comparable_streams`,
                                                        `workbench.comparable_vocoder`,
                                                        `workbench.comparable_w2v_bert`,
                                                        `workbench.comparable_whisper`)
Plans     steps compiled for a slice that is not here  (`workbench.plan`, `workbench.plan_program`)
          memory, roofline, settings that fit          (`workbench.plan_memory`, `workbench.plan_bound`,
                                                        `workbench.plan_fit`)
          as text                                      (`workbench.plan_text`)
Compiler  its text: operations, traffic                (`workbench.hlo_text`, `workbench.hlo_traffic`)
          calls inside a traced program                (`workbench.jaxpr_calls`)
Bench     ours and PyTorch taking turns                (`workbench.bench`, `workbench.bench_cases`,
                                                        `workbench.bench_machine`)
          a text LM that hears; our side of a case      (`workbench.bench_speech_aware`,
                                                        `workbench.bench_ours`)
          codes of several books                        (`workbench.bench_streams`)
          a frame of a session without turns            (`workbench.bench_duplex`)
          codecs, and a step of training one            (`workbench.bench_codecs`,
                                                        `workbench.bench_codec_training`)
          shapes                                        (`workbench.bench_shapes`)
"""
